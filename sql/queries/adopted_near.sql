-- Purpose: a transaction id at or above that of every row which the snapshot at hand sees.
-- Locks:   none. Plan: one row.
-- Hazard:  the snapshot of a new slot may have its xmin behind its xmax.
select greatest(
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
