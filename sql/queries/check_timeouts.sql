-- Purpose: timeouts that end statements, transactions or sessions: what this role was given, and what holds here.
-- Locks:   none.
-- Plan:    reads the list of settings, and what roles and this database were given.
-- Hazard:  the session's start and session.sql have taken them away before; one that holds all the same is of a kind
--          that they do not know.
with timeout as (
    select name, setting || coalesce(unit, '') as holds, setting <> '0' as ends
    from pg_settings
    where context in ('user', 'superuser')
        and name ~ '^[a-z_]*(statement|lock|transaction|session)_timeout$'
        and name <> 'deadlock_timeout'
), given as (
    select split_part(option, '=', 1) as name, split_part(option, '=', 2) as value
    from pg_db_role_setting
        cross join lateral unnest(setconfig) as option
    where setrole in (0, (select oid from pg_roles where rolname = session_user))
        and setdatabase in (0, (select oid from pg_database where datname = current_database()))
)
select timeout.name, timeout.holds, timeout.ends, coalesce(string_agg(given.value, ' or '), '0') as given
from timeout
    left join given on given.name = timeout.name and given.value <> '0'
where timeout.ends or given.value is not null
group by timeout.name, timeout.holds, timeout.ends
order by timeout.name
