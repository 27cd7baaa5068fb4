-- Purpose: the tick: what had ended, and the tick's own transaction id.
-- Locks:   none.
-- Plan:    one row, one small WAL record, one commit that waits for the disk (and for a synchronous
--          standby). The answer is used only when the commit has returned: its record lies behind
--          those of all transactions that the snapshot sees, so these are then as durable as it is.
-- Hazard:  a commit without WAL of its own is not flushed; that is what the message is for. Run it
--          as a statement of its own, with synchronous_commit = on.
select pg_current_snapshot(), pg_current_xact_id(), pg_logical_emit_message(true, 'postrider.tick', '')
