-- Purpose: renews an instance's lease. $1 name, $2 shards, $3 milliseconds that it lasts.
-- Locks:   its own row, for one short transaction. A session lock under its name tells others that the
--          session lives; it ends with the session, also by kill -9.
-- Plan:    one key lookup; the update is heap-only.
-- Hazard:  a server that has not noticed the end of our former session yet still holds the lock for
--          it. Then this one is not had, which does no harm, and is tried again at the next renewal.
insert into postrider.instance as known (name, shards, renewed_at, lease_until)
values ($1, $2, clock_timestamp(), clock_timestamp() + $3::bigint * interval '1 millisecond')
on conflict (name) do update
set shards = excluded.shards, renewed_at = excluded.renewed_at, lease_until = excluded.lease_until
returning $4 or pg_try_advisory_lock(hashtextextended(known.name, 4711)) as announced
