-- Purpose: whether nobody makes or reads the slot; if so, nobody does to the end of this transaction.
-- Locks:   the lock of instance_lock.sql, if it is free.
-- Plan:    one row.
-- Hazard:  what follows must be a statement of its own: one snapshot would be older than the lock.
select pg_try_advisory_xact_lock(hashtext('postrider.instance'), 0) as is_free
