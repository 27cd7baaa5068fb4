-- Purpose: takes published events out of postrider.parked, and answered requests off the list.
--          $1 our buckets, $2 their epochs, $3 seq of the events, $4 requests.
-- Locks:   share locks on the cursors of their buckets, row locks, for one short transaction.
-- Plan:    one key lookup per event, per request and per bucket.
-- Hazard:  a bucket's next owner holds what it finds parked. Rows that went away behind its back would
--          leave a hold that nobody lifts; so a former owner takes nothing away.
with mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket in (
        select bucket from postrider.parked where seq = any($3::bigint[])
        union
        select bucket from postrider.parked_request where request = any($4::bigint[]))
    for share of kept
), published as (
    delete from postrider.parked as parked
    using mine
    where parked.bucket = mine.bucket and parked.seq = any($3::bigint[])
)
delete from postrider.parked_request as asked
using mine
where asked.bucket = mine.bucket and asked.request = any($4::bigint[])
