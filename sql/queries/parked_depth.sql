-- Purpose: how much is parked in some buckets, by reason, and since when; for figures. $1 buckets.
-- Locks:   access share on postrider.parked.
-- Plan:    reads the parked rows of the buckets, without their payloads.
-- Hazard:  who asks again and again leaves pauses as long as the answer takes.
select reason, count(*) as events,
    date_part('epoch', clock_timestamp() - min(parked_at)) as oldest_age_seconds,
    count(distinct topic) filter (where reason = 'topic-unavailable') as topics
from postrider.parked
where bucket = any($1)
group by reason
