-- Purpose: which kinds of events a replay would send: their topics are made of these. Parameters as in
--          replay_filter.sql.
-- Locks:   access share on the outbox.
-- Plan:    reads the range of seq in each partition.
-- Hazard:  a thousand at most; the names come from writers.
select distinct aggregatetype, type
from ({bucket_arms}) as event
where {filter}
order by aggregatetype, type
limit 1000
