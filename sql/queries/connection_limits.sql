-- Purpose: how many sessions this role may open, by each limit that there is.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  what others have opened is not counted: it changes. A superuser is held up by the server's limit alone.
select 'the connection limit of role ' || quote_ident(rolname) as whose, rolconnlimit::bigint as allowed
from pg_roles
where rolname = session_user and rolconnlimit >= 0 and not rolsuper
union all
select 'the connection limit of database ' || quote_ident(datname), datconnlimit::bigint
from pg_database
where datname = current_database() and datconnlimit >= 0
    and not (select rolsuper from pg_roles where rolname = session_user)
union all
select 'max_connections of the server, less what is reserved,',
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
