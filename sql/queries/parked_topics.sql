-- Purpose: which topics events wait for. $1 buckets.
-- Locks:   access share on postrider.parked.
-- Plan:    by the index on the rows that wait for a topic.
-- Hazard:  none.
select distinct topic
from postrider.parked
where bucket = any($1::smallint[]) and reason = 'topic-unavailable' and topic is not null
