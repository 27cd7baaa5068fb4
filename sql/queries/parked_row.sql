-- Purpose: parks one row of the outbox inside the server. $1 our buckets, $2 their epochs, $3 bucket,
--          $4 seq, $5 id, $6 reason, $7 detail, $8 topic, $9 attempts. Answers with how many rows that
--          were; without an answer, if the bucket is not ours.
-- Locks:   as parked_insert.sql.
-- Plan:    one key lookup per generation of the bucket; the value is copied within the server.
-- Hazard:  as parked_insert.sql.
with mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket = $3::smallint
    for share of kept
)
select postrider.park_row(bucket, $4::bigint, $5::uuid, $6::text, $7::text, $8::text, $9::integer)
    as written
from mine
