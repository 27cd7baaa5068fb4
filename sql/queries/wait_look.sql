-- Purpose: how far each bucket is published.
-- Locks:   access share on postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  rows that nobody drew a number for may lie below an open window; they are not waited for. Cursors of
--          another cluster or database, or of a later state of this one, say nothing about its rows.
select bucket, from_snapshot, upto_snapshot, "position" >= upto_ceiling as is_finished,
    system_identifier is null
        or (postrider.is_saved_here(database_oid, cursor_oid)
            and system_identifier = (select system_identifier from pg_control_system())
            and lsn <= pg_current_wal_insert_lsn()) as is_of_this_history
from postrider.cursor
order by bucket
