-- Purpose: what is there before a migration: the server's version and role, the registry, the
--          control tables. $1 the outbox's schema, quoted; $2 its qualified name, quoted.
-- Locks:   none.
-- Plan:    one row.
-- Hazard:  the control tables without the registry were made by something else.
select
    current_setting('server_version_num')::integer as server_version,
    pg_is_in_recovery() as standby,
    to_regclass('postrider.migration') is not null as has_registry,
    to_regclass('postrider.outbox') is not null as has_control,
    to_regnamespace($1) is not null as has_schema,
    to_regclass($2) is not null as has_table
