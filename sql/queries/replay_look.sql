-- Purpose: whether there is anything to send once more in our buckets, and whether anybody waits until everything is
--          published. $1 the buckets.
-- Locks:   access share on postrider.replay_bucket.
-- Plan:    the index of parts that have not ended, which is empty nearly always; the list of sessions, in memory.
-- Hazard:  any login may call its session so: a tick a second comes of it, and that is all.
select exists (
        select from postrider.replay_bucket where bucket = any ($1::smallint[]) and ended_at is null) as is_any_open,
    exists (
        select from pg_stat_activity
        where application_name = 'postrider wait' and datname = current_database()) as is_waited
