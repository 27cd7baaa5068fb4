-- Purpose: the instances that are alive. $1 our own name, $2 milliseconds of silence after which an
--          instance without a session counts as dead before its lease has run out.
-- Locks:   for an instance that was silent, the shared lock under its name, to the statement's end.
-- Plan:    a handful of rows.
-- Hazard:  who is declared dead and is not, is fenced by the epoch and steps down: repeats, no loss.
select name
from postrider.instance
where name = $1
    or (lease_until > clock_timestamp()
        and (renewed_at > clock_timestamp() - $2::bigint * interval '1 millisecond'
            or not pg_try_advisory_xact_lock_shared(hashtextextended(name, 4711))))
order by name
