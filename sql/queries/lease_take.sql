-- Purpose: takes buckets: the epoch rises, and a former owner saves nothing any more.
--          $1 our name, $2 buckets, $3 the epochs under which they were seen to be free.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
-- Plan:    one key lookup per bucket.
-- Hazard:  a bucket whose epoch has risen meanwhile was taken by another instance: it does not come
--          back. Nor does anything when our own lease has run out.
update postrider.cursor as taken
set epoch = taken.epoch + 1, owner = $1
from unnest($2::smallint[], $3::bigint[]) as seen (bucket, epoch)
where taken.bucket = seen.bucket
    and taken.epoch = seen.epoch
    and exists (
        select from postrider.instance where name = $1 and lease_until > clock_timestamp())
returning taken.bucket, taken.epoch
