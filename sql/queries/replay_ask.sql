-- Purpose: asks for a replay. $1 to $4, $7 and $8 as in replay_filter.sql; $5 where to, null for the topics as before;
--          $6 events per second, null for any; $9 buckets with $10 first seq, $11 last seq and $12 events found.
-- Locks:   row locks on new rows.
-- Plan:    at most 65 rows.
-- Hazard:  the snapshot is that of the transaction which has counted the events: no others are sent.
with asked as (
    insert into postrider.replay
        (aggregatetypes, aggregateids, types, ids, to_topic, events_per_second, since, until, asked_snapshot)
    values ($1, $2, $3, $4, $5, $6, $7, $8, pg_current_snapshot())
    returning replay
)
insert into postrider.replay_bucket (replay, bucket, next_seq, last_seq, found)
select asked.replay, part.bucket, part.next_seq, part.last_seq, part.found
from asked, unnest($9::smallint[], $10::bigint[], $11::bigint[], $12::bigint[])
    as part (bucket, next_seq, last_seq, found)
returning replay
