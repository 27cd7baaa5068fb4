-- Purpose: the figures of a replication slot. $1 its name.
-- Locks:   none beyond the slot's own.
-- Plan:    one row, or none.
-- Hazard:  safe_wal_size is null where max_slot_wal_keep_size is not set.
select coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint as retained_bytes,
    safe_wal_size as safe_bytes,
    confirmed_flush_lsn,
    -- The column came with PostgreSQL 17.
    date_part('epoch', clock_timestamp() - (to_jsonb(slot) ->> 'inactive_since')::timestamptz) as inactive_seconds,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint as behind_bytes
from pg_replication_slots as slot
where slot_name = $1
