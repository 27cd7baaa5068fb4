-- Purpose: drops a replication slot. $1 its name.
-- Locks:   the slot's own; fails while somebody reads it.
-- Plan:    one row.
-- Hazard:  what it had kept in the log is gone: only after the cursors can go on without it.
select pg_drop_replication_slot(slot_name)
from pg_replication_slots
where slot_name = $1
