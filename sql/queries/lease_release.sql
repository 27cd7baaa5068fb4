-- Purpose: lets buckets go. $1 our name, $2 buckets, $3 our epochs.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
-- Plan:    one key lookup per bucket.
-- Hazard:  only after the bucket's last cursor was saved, or its next owner repeats events.
update postrider.cursor as released
set owner = null
from unnest($2::smallint[], $3::bigint[]) as given (bucket, epoch)
where released.bucket = given.bucket and released.epoch = given.epoch and released.owner = $1
