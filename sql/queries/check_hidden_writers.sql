-- Purpose: transactions of sessions that keep their times to themselves, which have written and stay open: since when at
--          least, by the ticks of the last day. $1 from how many seconds on.
-- Locks:   access share on postrider.past_tick.
-- Plan:    one row per transaction that runs, each with one look into the ticks, some 2,000 rows.
-- Hazard:  a transaction that wrote nothing into the outbox may be younger than the latest tick: it is not told. Where
--          the log is read no ticks are noted.
select 'session ' || session.pid as what, session.usename::text as role, session.datname::text as database,
    date_part('epoch', clock_timestamp() - known.since) as seconds
from pg_snapshot_xip(pg_current_snapshot()) as running (xid)
    join pg_locks as held
        on held.locktype = 'transactionid' and held.granted
        and held.transactionid::text::bigint = (running.xid::text::numeric % 4294967296)::bigint
    join pg_stat_activity as session
        on session.pid = held.pid and session.usesysid is not null and session.backend_type is null
    cross join lateral (
        select min(noted_at) as since from postrider.past_tick where next > running.xid) as known
where known.since < clock_timestamp() - make_interval(secs => $1::double precision)
order by known.since
limit 5
