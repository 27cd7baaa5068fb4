-- Purpose: what our slot is called, and which options its making takes.
-- Locks:   none. Plan: one row.
-- Hazard:  slots belong to the whole server: the database's number keeps the names apart.
select current_setting('server_version_num')::integer as server_version, 'postrider_' || oid as slot_name
from pg_database
where datname = current_database()
