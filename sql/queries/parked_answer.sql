-- Purpose: takes published events out of postrider.parked, and answered requests off the list.
--          $1 our buckets, $2 their epochs, $3 turns of the events, $4 requests. Answers how many of both
--          lie in buckets that are not ours: those stay.
-- Locks:   share locks on the cursors of their buckets, row locks, for one short transaction.
-- Plan:    one key lookup per event, per request and per bucket.
-- Hazard:  a bucket's next owner holds what it finds parked. Rows that went away behind its back would
--          leave a hold that nobody lifts; so a former owner takes nothing away. What is not there any more
--          somebody has discarded.
with given as materialized (
    select bucket from postrider.parked where turn = any($3::bigint[])
    union all
    select bucket from postrider.parked_request where request = any($4::bigint[])
), mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket in (select bucket from given)
    for share of kept
), published as (
    delete from postrider.parked as parked
    using mine
    where parked.bucket = mine.bucket and parked.turn = any($3::bigint[])
), answered as (
    delete from postrider.parked_request as asked
    using mine
    where asked.bucket = mine.bucket and asked.request = any($4::bigint[])
)
select count(*) as foreign_rows
from given
where bucket not in (select bucket from mine)
