-- Purpose: for which lock a session of this login's relays or commands has waited for seconds, and who is at the head of
--          the queue for it.
-- Locks:   none; pg_blocking_pids holds up whoever takes or gives back a lock of the server for microseconds.
-- Plan:    reads the sessions and the locks of the server: ask only when something waits.
-- Hazard:  number 0 is a prepared transaction. A role, and an application's name, are what a stranger chose.
with recursive waiting as (
    select session.pid, session.application_name, held.locktype, held.relation, held.waitstart
    from pg_locks as held
        join pg_stat_activity as session on session.pid = held.pid
    where not held.granted
        and session.datname = current_database()
        and session.usename = session_user
        and session.application_name like 'postrider %'
        and held.waitstart < clock_timestamp() - interval '2 seconds'
), queue as (
    select waiting.pid as waiter, before.pid as blocker, 1 as place
    from waiting
        cross join unnest(pg_blocking_pids(waiting.pid)) as before (pid)
    union
    select queue.waiter, before.pid, queue.place + 1
    from queue
        cross join unnest(pg_blocking_pids(queue.blocker)) as before (pid)
    where queue.blocker <> 0 and queue.place < 16
)
select waiting.application_name as waiter,
    case when waiting.locktype = 'relation' then waiting.relation::regclass::text end as relation,
    queue.blocker as pid, holder.usename::text as role, holder.application_name as application
from queue
    join waiting on waiting.pid = queue.waiter
    left join pg_stat_activity as holder on holder.pid = queue.blocker
where queue.blocker = 0 or cardinality(pg_blocking_pids(queue.blocker)) = 0
order by waiting.waitstart, queue.place desc, queue.blocker
limit 1
