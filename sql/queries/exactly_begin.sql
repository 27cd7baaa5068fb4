-- Purpose: what has to be known of buckets before their cursors are read from Kafka. $1 the buckets.
-- Locks:   access share on postrider.cursor.
-- Plan:    one key lookup per bucket.
-- Hazard:  read behind the taking: whoever had a bucket before has written its ids down by then, or finds that
--          it has lost it.
select bucket, epoch, fence, delivery_term
from postrider.cursor
where bucket = any($1)
