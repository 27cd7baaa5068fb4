-- Purpose: the running transactions that have drawn nothing from the outbox's sequence. Drawing takes a lock on the
--          sequence, which is kept until the whole transaction has ended, prepared ones included.
-- Locks:   those of the lock manager's own tables, for a moment, as any look at pg_locks.
-- Plan:    one look at pg_locks. Only where a transaction has been open for long, and once a second at most.
-- Hazard:  it must be one look: in two, a transaction could be seen running by the first, draw, end, and be seen
--          without a lock by the second. Within one, weak locks are read before the ids, so that whoever is
--          seen running had not drawn when the look began (GetLockStatusData in PostgreSQL's lock.c).
--          The ids are the lower 32 bits. Those of subtransactions are among them.
select unnest(array_agg(transactionid::text::bigint)
    filter (where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted))
from pg_locks
group by virtualtransaction
having not bool_or(
    locktype = 'relation'
    and relation = {sequence}::regclass
    and database = (select oid from pg_database where datname = current_database()))
