-- Purpose: under this term these buckets are delivered as it says: where exactly once, a cursor of each is committed
--          to Kafka. $1 buckets, $2 our epochs, $3 the term.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
-- Plan:    one key lookup per bucket; nothing is written that stands there already.
-- Hazard:  where exactly once, only after the commit: from here on a cursor that is missing in Kafka is an error.
update postrider.cursor as kept
set delivery_term = $3
from unnest($1::smallint[], $2::bigint[]) as given (bucket, epoch)
where kept.bucket = given.bucket and kept.epoch = given.epoch and kept.delivery_term is distinct from $3
