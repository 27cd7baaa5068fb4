-- Purpose: how much is parked, and since when, by bucket (reason is null then) and by bucket and reason; for figures.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows, without their payloads.
-- Hazard:  who asks again and again leaves pauses as long as the answer takes. An aggregate has one bucket, but events
--          that are parked for several reasons: only those of the buckets add up. Topics do not: several buckets wait for one.
select bucket, reason, count(*) as events,
    count(distinct aggregate) as aggregates,
    date_part('epoch', clock_timestamp() - min(parked_at)) as oldest_age_seconds,
    array_agg(distinct topic) filter (where reason = 'topic-unavailable' and topic is not null) as topics
from postrider.parked
group by grouping sets ((bucket), (bucket, reason))
