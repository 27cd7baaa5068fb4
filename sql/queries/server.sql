-- Purpose: what check says of the server and of this session.
-- Locks:   none. Plan: one row. Hazard: none.
select current_setting('server_version') as version,
    current_setting('server_version_num')::integer as version_number,
    current_user::text as role,
    current_setting('fsync') = 'on' as durable,
    date_part('epoch', clock_timestamp()) as clock_seconds,
    (select rolreplication and not rolsuper from pg_roles where rolname = session_user) as may_replicate,
    (select version from pg_stat_ssl where pid = pg_backend_pid() and ssl) as tls
