-- Purpose: ends the session that holds the lock of the one instance that reads the log, when that instance
--          is gone and the server does not know it. $1 milliseconds of silence.
-- Locks:   none.
-- Plan:    reads the locks and the sessions of the server: ask seldom.
-- Hazard:  a machine that lost its power or its network, or a process that is frozen, leaves a session
--          that the server keeps for hours. Whoever lives asks at least once a second on it, and has a
--          lease; one that was renewed in the future is none. Only sessions of our own login: another's may
--          not be ended. The advisory lock is that of instances before migration 0015.
with login as materialized (select set_config('role', 'none', true))
select pg_terminate_backend(holder.pid)
from login
    cross join pg_locks as held
    join pg_stat_activity as holder on holder.pid = held.pid
where held.granted
    and held.database = (select oid from pg_database where datname = current_database())
    and (held.locktype = 'relation'
            and held.relation = 'postrider.log_reader'::regclass
            and held.mode = 'ExclusiveLock'
        or held.locktype = 'advisory'
            and held.classid = hashtext('postrider.instance')::oid
            and held.objid = 0
            and held.objsubid = 2)
    and holder.usename = session_user
    and holder.state like 'idle%'
    and holder.state_change < clock_timestamp() - $1::bigint * interval '1 millisecond'
    and not exists (
        select from postrider.instance
        where lease_until > clock_timestamp()
            and renewed_at between clock_timestamp() - $1::bigint * interval '1 millisecond'
                and clock_timestamp())
