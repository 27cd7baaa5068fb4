-- Purpose: the state of a replication slot. $1 its name.
-- Locks:   none beyond the slot's own.
-- Plan:    one row, or none.
-- Hazard:  a slot of this name may be another database's, or another plug-in's: it is not ours then.
select coalesce(plugin, '') = 'pgoutput' and coalesce(database, '') = current_database() as is_ours,
    active_pid,
    confirmed_flush_lsn,
    coalesce(wal_status, '') = 'lost' as is_lost
from pg_replication_slots
where slot_name = $1
