-- Purpose: what it takes to read the log, and what of it is there. $1 our slot, $2 whether this session's
--          role is to read it, $3 whether the roles of the running instances are.
-- Locks:   none.
-- Plan:    a row for each session and each slot of the server.
-- Hazard:  a group's attribute does not count, but for Amazon's: there a group stands for the attribute.
--          A name of an application is anybody's: who may not save a cursor is no relay.
--          Our own slot and its reader's session are there already: they take no place from us.
select current_setting('wal_level') as wal_level,
    current_setting('max_replication_slots')::bigint as slots_max,
    (select count(*) from pg_replication_slots where slot_name <> $1::text) as other_slots,
    current_setting('max_wal_senders')::bigint as senders_max,
    (select count(*)
    from pg_stat_replication as sender
        left join pg_stat_activity as session on session.pid = sender.pid
    where (session.datname = current_database()
            and session.application_name in ('postrider reader', 'postrider slot')) is not true) as other_senders,
    (select string_agg(quote_ident(role.rolname), ', ' order by role.rolname)
    from pg_roles as role
    where not role.rolreplication
        and not role.rolsuper
        and not exists (
            select from pg_roles as stand_in
            where stand_in.rolname = 'rds_replication' and pg_has_role(role.oid, stand_in.oid, 'member'))
        and ($2 and role.rolname = session_user
            or $3 and role.oid in (
                select usesysid from pg_stat_activity
                where datname = current_database() and application_name = 'postrider cursors')
            and exists (
                select from pg_roles as owner
                where has_table_privilege(owner.oid, 'postrider.cursor', 'update')
                    and pg_has_role(role.oid, owner.oid, 'member')))
    ) as roles_without
