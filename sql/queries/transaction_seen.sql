-- Purpose: whether whoever reads from now on sees what the transaction $1 has committed.
-- Locks:   none. Plan: none.
-- Hazard:  a transaction is in the log before others see it.
select pg_visible_in_snapshot($1::text::xid8, pg_current_snapshot()) as is_seen
