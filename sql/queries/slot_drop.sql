-- Purpose: drops a replication slot. $1 its name.
-- Locks:   the slot's own; fails while somebody reads it.
-- Plan:    one row.
-- Hazard:  what it had kept in the log is gone: only after the cursors can go on without it. The right to
--          replicate is the login's own: another role that it takes by a setting does not have it.
with login as materialized (select set_config('role', 'none', true))
select pg_drop_replication_slot(slot_name)
from login
    cross join pg_replication_slots
where slot_name = $1
