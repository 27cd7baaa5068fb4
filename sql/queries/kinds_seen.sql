-- Purpose: the kinds of events among the newest that the outbox still holds, and the topics that parked ones wait for.
-- Locks:   access share on the outbox and on postrider.parked.
-- Plan:    100,000 rows from the upper end of the index on seq of each partition, merged.
-- Hazard:  a kind that is rarer than that, or whose rows are gone, is not seen. Nor is one that is no text: it names no
--          topic.
select aggregatetype_.legible as aggregatetype, type_.legible as type, null::text as topic
from (
    select distinct aggregatetype, type
    from (
        select aggregatetype, type
        from {outbox}
        order by seq desc
        limit 100000
    ) as newest
) as kind
    cross join lateral postrider.legible(kind.aggregatetype) as aggregatetype_
    cross join lateral postrider.legible(kind.type) as type_
where aggregatetype_.fault is null and type_.fault is null
union all
select distinct null, null, topic
from postrider.parked
where reason = 'topic-unavailable' and topic is not null
