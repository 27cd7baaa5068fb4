-- Purpose: whether commits wait for a standby.
-- Locks:   none.
-- Plan:    none.
-- Hazard:  a server that begins to wait is noticed at the next look.
select current_setting('synchronous_standby_names') <> ''
