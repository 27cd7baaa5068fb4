-- Purpose: whether no instance of a version before migration 0015 reads the log, or makes a slot. Such an
--          instance goes by an advisory lock alone; it is taken here, so that it stands by.
-- Locks:   that advisory lock, to the end of the transaction.
-- Plan:    one row; where the lock is not had, the server's locks and sessions.
-- Hazard:  any login may take an advisory lock. One that may not change postrider.cursor is no instance.
select pg_try_advisory_xact_lock(hashtext('postrider.instance'), 0)
    or not exists (
        select
        from pg_locks as held
            join pg_stat_activity as holder on holder.pid = held.pid
        where held.locktype = 'advisory'
            and held.database = (select oid from pg_database where datname = current_database())
            and held.classid = hashtext('postrider.instance')::oid
            and held.objid = 0
            and held.objsubid = 2
            and held.granted
            and exists (
                select from pg_roles as role
                where has_table_privilege(role.oid, 'postrider.cursor', 'update')
                    and pg_has_role(holder.usesysid, role.oid, 'member')))
    as is_free
