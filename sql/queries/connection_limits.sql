-- Purpose: how many sessions this role may open, by each limit that there is, and how many others have open.
-- Locks:   none.
-- Plan:    a few catalog rows, and one per session of the server.
-- Hazard:  what others have opened changes from moment to moment. Sessions of relays by this role are not counted:
--          they may be those that the next start takes the place of. A superuser is held up by the server's limit
--          alone. Places that only members of a role may take (reserved_connections) are known from 16 on.
with others as (
    select usesysid, datid
    from pg_stat_activity
    where usesysid is not null
        and not (usename = session_user and application_name like 'postrider %')
)
select 'the connection limit of role ' || quote_ident(rolname) as whose, rolconnlimit::bigint as allowed,
    (select count(*) from others where usesysid = pg_roles.oid) as taken
from pg_roles
where rolname = session_user and rolconnlimit >= 0 and not rolsuper
union all
select 'the connection limit of database ' || quote_ident(datname), datconnlimit::bigint,
    (select count(*) from others where datid = pg_database.oid)
from pg_database
where datname = current_database() and datconnlimit >= 0
    and not (select rolsuper from pg_roles where rolname = session_user)
union all
select 'max_connections of the server, less what is reserved,',
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
        - coalesce(current_setting('reserved_connections', true), '0')::bigint,
    (select count(*) from others)
