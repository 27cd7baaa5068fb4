-- Purpose: these ids may have something open with the buckets from here on. $1 buckets, $2 our epochs, $3 the ids.
--          Answers how many are ours still, and which transaction of this server has written that.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
-- Plan:    one key lookup per bucket.
-- Hazard:  after everything that was noted there is ended in Kafka, and before the first record: it is the look
--          without which a former owner that wakes up would publish beside the present one. It is on disk when it
--          is answered: the session commits without waiting, and a crash would forget the ids.
with recorded as (
    update postrider.cursor as kept
    set fence = $3
    from unnest($1::smallint[], $2::bigint[]) as given (bucket, epoch)
    where kept.bucket = given.bucket and kept.epoch = given.epoch
    returning kept.bucket
)
select count(*) as buckets, pg_current_xact_id() as txid, set_config('synchronous_commit', 'on', true)
from recorded
