-- Purpose: who has kept the lock of the one instance that reads the log for $2 milliseconds, while no instance but
--          ours, $1, has a lease, or had one within these: a session that is none of the relay's.
-- Locks:   none.
-- Plan:    reads the locks and the sessions of the server: ask seldom.
-- Hazard:  an instance has no lease for a moment after it got the lock: its transaction has begun then. One that is
--          frozen keeps the lock without a lease, until instance_unlock.sql ends its session: it is no stranger, either. Of
--          another role it may be hidden when it began: then it counts as long ago.
select holder.pid, holder.usename::text as role, holder.application_name
from pg_locks as held
    join pg_stat_activity as holder on holder.pid = held.pid
where held.granted
    and held.database = (select oid from pg_database where datname = current_database())
    and held.locktype = 'relation'
    and held.relation = 'postrider.log_reader'::regclass
    and held.mode <> 'AccessShareLock'
    and coalesce(holder.xact_start < clock_timestamp() - $2::bigint * interval '1 millisecond', true)
    and not exists (
        select from postrider.instance
        where name <> $1 and lease_until > clock_timestamp() - $2::bigint * interval '1 millisecond')
limit 1
