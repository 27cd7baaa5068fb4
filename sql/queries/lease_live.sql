-- Purpose: the instances that are alive. $1 our own name, $2 milliseconds of silence after which an
--          instance without a session counts as dead before its lease has run out.
-- Locks:   none.
-- Plan:    a handful of rows; for an instance that was silent, the server's sessions.
-- Hazard:  who is declared dead and is not, is fenced by the epoch and steps down: repeats, no loss. A
--          renewal in the future, as of a clock that was set back, is not fresh: the session decides. One of
--          a version before migration 0015 is told by an advisory lock, and by the rights of who holds it,
--          as any login may take such a lock.
select name
from postrider.instance
where name = $1
    or (lease_until > clock_timestamp()
        and (renewed_at between clock_timestamp() - $2::bigint * interval '1 millisecond'
                and clock_timestamp()
            or exists (
                select
                from pg_stat_activity as session
                where session.datname = current_database()
                    and session.application_name = 'postrider lease'
                    and session.pid = coalesce(session_pid, (
                        select held.pid
                        from pg_locks as held
                            join pg_stat_activity as holder on holder.pid = held.pid
                        where held.locktype = 'advisory'
                            and held.database =
                                (select oid from pg_database where datname = current_database())
                            and held.classid::bigint =
                                (hashtextextended(name, 4711) >> 32 & 4294967295)
                            and held.objid::bigint = (hashtextextended(name, 4711) & 4294967295)
                            and held.objsubid = 1
                            and held.granted
                            and exists (
                                select from pg_roles as role
                                where has_table_privilege(role.oid, 'postrider.instance', 'update')
                                    and pg_has_role(holder.usesysid, role.oid, 'member'))
                        limit 1)))))
order by name
