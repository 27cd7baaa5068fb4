-- Purpose: the next requests, in the order of asking. $1 buckets, $2 how many.
-- Locks:   access share on postrider.parked_request.
-- Plan:    by the primary key.
-- Hazard:  none.
select request, bucket, aggregatetype, aggregateid
from postrider.parked_request
where bucket = any($1::smallint[])
order by request
limit $2
