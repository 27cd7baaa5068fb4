-- Purpose: the figures of a replication slot. $1 its name.
-- Locks:   none beyond the slot's own.
-- Plan:    one row, or none.
-- Hazard:  safe_wal_size is null where max_slot_wal_keep_size is not set.
select coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint as retained_bytes,
    safe_wal_size as safe_bytes,
    confirmed_flush_lsn,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint as behind_bytes
from pg_replication_slots
where slot_name = $1
