-- Purpose: whether the cursors are of this server, or of none, where no hand-over is recorded.
-- Locks:   access share on postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  cursors that were set anew are of none until a relay has saved them.
select coalesce(
    bool_and(postrider.is_saved_here(database_oid, cursor_oid)
        and system_identifier = (select system_identifier from pg_control_system())
        and lsn <= pg_current_wal_insert_lsn()),
    true) as is_here
from postrider.cursor
