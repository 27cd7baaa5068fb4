-- Purpose: nothing is open with these buckets any more. $1 buckets, $2 our epochs.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
-- Plan:    one key lookup per bucket.
-- Hazard:  only after their last transaction has ended, for sure.
update postrider.cursor as kept
set fence = '{}'
from unnest($1::smallint[], $2::bigint[]) as given (bucket, epoch)
where kept.bucket = given.bucket and kept.epoch = given.epoch
