-- Purpose: for whom the making of a slot waits: transactions that were open when it began.
-- Locks:   none.
-- Plan:    a few rows.
-- Hazard:  a prepared transaction has no backend; it waits until somebody ends it.
select string_agg(who, ', ') as who
from (
    select coalesce('backend ' || blocker.pid || coalesce(' (' || blocker.application_name || ')', ''),
        'the prepared transaction ' || (select string_agg(gid, ', ') from pg_prepared_xacts)) as who
    from pg_stat_activity as maker
        join pg_locks as wanted on wanted.pid = maker.pid and not wanted.granted
            and wanted.locktype = 'transactionid'
        left join pg_locks as held on held.locktype = 'transactionid' and held.granted
            and held.transactionid = wanted.transactionid and held.pid is not null
        left join pg_stat_activity as blocker on blocker.pid = held.pid
    where maker.application_name = 'postrider slot' and maker.datname = current_database()
) as waits
