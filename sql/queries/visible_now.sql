-- Purpose: what can be seen now, and a place in the log behind all of that.
-- Locks:   none.
-- Plan:    no table is read.
-- Hazard:  the place is read behind the snapshot: a transaction is seen only once its commit is in the log.
select pg_current_snapshot() as snapshot, pg_current_wal_insert_lsn() as lsn
