-- Purpose: leads all cursors behind every retained event, in the transaction that has made all of them its own, and
--          uses up the record of the hand-over.
-- Locks:   row locks on all cursors. Whoever runs it has the exclusive lock on the outbox.
-- Plan:    at most 64 rows.
-- Hazard:  the transaction does not see itself in its snapshot, nor does the snapshot list who runs beside it behind the
--          last that ended: both are said here. Whoever runs meanwhile has no row in the outbox yet, or the lock had
--          not been had, and what it writes later is not seen by this snapshot.
with seen as (
    select pg_current_snapshot() as snapshot, pg_current_xact_id()::text::bigint as own
), bounds as (
    select own, greatest(pg_snapshot_xmax(snapshot)::text::bigint, own + 1) as xmax, snapshot
    from seen
), running as (
    select xid
    from bounds, lateral (
        select listed::text::bigint as xid from pg_snapshot_xip(snapshot) as listed
        union
        select generate_series(pg_snapshot_xmax(snapshot)::text::bigint, xmax - 1)
    ) as beside
    where xid <> own
), passed as (
    select (coalesce((select min(xid) from running), bounds.xmax) || ':' || bounds.xmax || ':'
            || coalesce((select string_agg(xid::text, ',' order by xid) from running), ''))::pg_snapshot as snapshot,
        bounds.own::text::xid8 as own
    from bounds
), used as (
    delete from postrider.handover
)
update postrider.cursor
set from_snapshot = passed.snapshot, upto_snapshot = passed.snapshot, upto_next = passed.own
from passed
