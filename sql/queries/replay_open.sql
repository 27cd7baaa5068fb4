-- Purpose: what is to be sent once more in our buckets. $1 the buckets.
-- Locks:   access share on the tables of replays.
-- Plan:    the index of parts that have not ended.
-- Hazard:  none; it is read again with each turn.
select part.bucket, part.next_seq, part.last_seq, asked.replay, asked.aggregatetypes, asked.aggregateids, asked.types,
    asked.ids, asked.since, asked.until, asked.asked_snapshot, asked.to_topic, asked.events_per_second,
    (select count(*) from postrider.replay_bucket as other
        where other.replay = asked.replay and other.ended_at is null) as parts_open
from postrider.replay_bucket as part
    join postrider.replay as asked using (replay)
where part.bucket = any ($1::smallint[]) and part.ended_at is null
order by asked.replay, part.bucket
