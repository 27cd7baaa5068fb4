-- Purpose: what was committed before now, in the table's terms and in the log's.
-- Locks:   none.
-- Plan:    two functions.
-- Hazard:  what commits while it runs may count or not.
select pg_current_snapshot() as snapshot, pg_current_wal_insert_lsn() as lsn
