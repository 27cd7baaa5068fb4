-- Purpose: transactions that have written and stay open, the oldest first. $1 from how many seconds on.
-- Locks:   none.
-- Plan:    one row per session of the server, and one per prepared transaction.
-- Hazard:  of sessions of other roles a role sees their age only with pg_read_all_stats (pg_monitor has it); how many
--          are hidden is told in each row.
with sessions as (
    select pid, usename, datname, backend_xid, backend_type, xact_start, backend_type is null as hidden
    from pg_stat_activity
    where usesysid is not null and pid <> pg_backend_pid()
), open as (
    select 'session ' || pid as what, usename::text as role, datname::text as database,
        date_part('epoch', clock_timestamp() - xact_start) as seconds
    from sessions
    where backend_xid is not null
        and xact_start < clock_timestamp() - make_interval(secs => $1::double precision)
    union all
    select 'prepared transaction ' || quote_literal(gid), owner::text, database::text,
        date_part('epoch', clock_timestamp() - prepared)
    from pg_prepared_xacts
    where prepared < clock_timestamp() - make_interval(secs => $1::double precision)
)
select open.what, open.role, open.database, open.seconds,
    (select count(*) from open) as all_open,
    (select count(*) from sessions where hidden) as hidden
from (select) as one
    left join (select * from open order by seconds desc limit 5) as open on true
