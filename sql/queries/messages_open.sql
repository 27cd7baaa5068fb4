-- Purpose: whether every login of the database may write messages into the log, and so, where events are read
--          from messages, events.
-- Locks:   none.
-- Plan:    reads the rights of a handful of functions.
-- Hazard:  PostgreSQL gives this right to everybody; only a superuser may take it away.
select exists (
    select
    from pg_proc as function
        cross join lateral aclexplode(
            coalesce(function.proacl, acldefault('f', function.proowner))) as granted
    where function.pronamespace = 'pg_catalog'::regnamespace
        and function.proname = 'pg_logical_emit_message'
        and granted.grantee = 0
        and granted.privilege_type = 'EXECUTE')
