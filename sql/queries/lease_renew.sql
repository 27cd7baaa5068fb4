-- Purpose: renews an instance's lease. $1 name, $2 shards, $3 milliseconds that it lasts.
-- Locks:   its own row, for one short transaction. The row names the session, which ends with the process,
--          also by kill -9: so others know that the instance lives. Instances of a version before migration
--          0015 go by an advisory lock under its name instead.
-- Plan:    one key lookup; the update is heap-only.
-- Hazard:  a server that has not noticed the end of our former session yet still holds the advisory lock for
--          it. Then this one is not had, which does no harm, and is tried again at the next renewal.
insert into postrider.instance as known (name, shards, renewed_at, lease_until, session_pid)
values ($1, $2, clock_timestamp(), clock_timestamp() + $3::bigint * interval '1 millisecond',
    pg_backend_pid())
on conflict (name) do update
set shards = excluded.shards, renewed_at = excluded.renewed_at, lease_until = excluded.lease_until,
    session_pid = excluded.session_pid
returning $4 or pg_try_advisory_lock(hashtextextended(known.name, 4711)) as announced,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint as now_micros
