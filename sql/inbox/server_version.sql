-- Purpose: which server it is, as `140005`.
-- Locks:   none.
-- Plan:    none.
-- Hazard:  none.
select current_setting('server_version_num')::integer as server_version
