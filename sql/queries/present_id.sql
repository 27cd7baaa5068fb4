-- Purpose: a transaction id above that of every transaction that has written yet, open ones among them.
-- Locks:   none. Plan: one row.
-- Hazard:  it takes an id of its own: the snapshot alone would not do, as open transactions may lie above its xmax.
select pg_current_xact_id()::text::bigint
