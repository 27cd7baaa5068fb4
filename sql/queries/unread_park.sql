-- Purpose: parks rows that nobody has read, inside the server. $1 bucket, $2 its epoch, $3 seq and $4 id of each row, $5
--          reason, $6 detail. Answers how many were written; null if the bucket is not ours.
-- Locks:   as parked_row.sql.
-- Plan:    as parked_row.sql, row by row.
-- Hazard:  as parked_row.sql. In one transaction with unread_ask.sql.
with mine as materialized (
    select bucket from postrider.cursor
    where bucket = $1::smallint and epoch = $2::bigint
    for share
)
select sum(postrider.park_row(mine.bucket, given.seq, given.id, $5::text, $6::text, null, 0))::bigint as written
from mine
    cross join unnest($3::bigint[], $4::uuid[]) as given (seq, id)
