-- Purpose: replays, the latest first. $1 so many at most, $2 only this one, or null.
-- Locks:   access share on the tables of replays.
-- Plan:    reads all replays that there ever were: few, as people ask for them.
-- Hazard:  repeats count among what was sent.
select asked.replay, asked.to_topic, asked.events_per_second, asked.requested_by,
    date_part('epoch', clock_timestamp() - asked.requested_at) as age_seconds,
    case
        when asked.cancelled_at is not null then 'cancelled'
        when part.open = 0 then 'done'
        when part.trouble is not null then 'waits'
        when part.sent > 0 then 'runs'
        else 'waits'
    end as state,
    asked.cancelled_by, part.trouble, part.found, part.sent, part.left_out, part.open as buckets_open,
    (select count(distinct earlier.replay) from postrider.replay_bucket as earlier
        where earlier.replay < asked.replay and earlier.ended_at is null) as earlier_open
from postrider.replay as asked
    join (
        select replay, count(*) filter (where ended_at is null) as open, sum(found)::bigint as found,
            sum(sent)::bigint as sent, sum(left_out)::bigint as left_out,
            min(trouble) filter (where ended_at is null) as trouble
        from postrider.replay_bucket
        group by replay
    ) as part using (replay)
where $2::bigint is null or asked.replay = $2
order by asked.replay desc
limit $1
