-- Purpose: how far the log is as durable as the server makes commits.
-- Locks:   none.
-- Plan:    one row, one small WAL record, one commit that waits for the disk and for the synchronous
--          standby. The answer is used only when the commit has returned: its record lies behind the place.
-- Hazard:  a commit without WAL of its own is not waited for; that is what the message is for. Run it
--          as a statement of its own, with synchronous_commit = on.
select pg_current_wal_insert_lsn(), pg_logical_emit_message(true, 'postrider.fence', '')
