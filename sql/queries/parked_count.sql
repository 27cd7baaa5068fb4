-- Purpose: how much is parked, and since when.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows, without their payloads.
-- Hazard:  none.
select count(*) as events,
    count(distinct (aggregatetype, aggregateid)) as aggregates,
    date_part('epoch', clock_timestamp() - min(parked_at)) as oldest_age_seconds
from postrider.parked
