-- Purpose: which history this server is on: standby or not, cluster, timeline, place in the log.
-- Locks:   none.
-- Plan:    one row.
-- Hazard:  pg_control_checkpoint() still names the old timeline just after a promotion; the name of
--          the present WAL file does not.
select
    pg_is_in_recovery() as standby,
    (select system_identifier from pg_control_system()) as system_identifier,
    case when not pg_is_in_recovery() then
        ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
    end as timeline,
    case when not pg_is_in_recovery() then pg_current_wal_insert_lsn() end as lsn,
    case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end as flushed
