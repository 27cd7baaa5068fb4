-- Purpose: how much is parked, and since when.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows, without their payloads.
-- Hazard:  aggregates are told apart by hashes, as their names may be long.
select count(*) as events,
    count(distinct (hashtextextended(aggregatetype, 0), hashtextextended(aggregateid, 0))) as aggregates,
    date_part('epoch', clock_timestamp() - min(parked_at)) as oldest_age_seconds
from postrider.parked
