-- Purpose: which kinds of events a replay would send: their topics are made of these. Parameters as in
--          replay_filter.sql.
-- Locks:   access share on the outbox.
-- Plan:    reads the range of seq in each partition.
-- Hazard:  a thousand at most; the names come from writers. What is no text names no topic, and is left out.
select aggregatetype_.legible as aggregatetype, type_.legible as type
from (
    select distinct aggregatetype, type
    from ({bucket_arms}) as event
    where {filter}
    order by aggregatetype, type
    limit 1000
) as kind
    cross join lateral postrider.legible(kind.aggregatetype) as aggregatetype_
    cross join lateral postrider.legible(kind.type) as type_
where aggregatetype_.fault is null and type_.fault is null
order by kind.aggregatetype, kind.type
