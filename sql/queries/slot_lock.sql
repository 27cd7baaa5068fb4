-- Purpose: keeps everybody else from making or reading the slot, to the end of this transaction.
-- Locks:   that of instance_lock.sql, if it is free.
-- Plan:    none.
-- Hazard:  what follows must be a statement of its own: one snapshot would be older than the lock.
lock table postrider.log_reader in exclusive mode nowait
