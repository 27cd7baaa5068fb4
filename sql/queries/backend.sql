-- Purpose: the number of this session's backend.
-- Locks:   none.
-- Plan:    one row.
-- Hazard:  none.
select pg_backend_pid()
