-- Purpose: changes how events are read. $1 the mode that was seen, $2 the new one.
-- Locks:   row locks, for one short transaction.
-- Plan:    one row each.
-- Hazard:  running instances follow within a second: they drain, save, and begin again.
--          A slot for rows is of no use for messages: it is made again before the change, or messages
--          written right after it would be lost. A slot for messages is of no use for rows: only
--          its name is kept, until it is dropped. Between poll and wal it stays: the cursors tell what
--          it lacks.
with changed as (
    update postrider.capture
    set mode = $2, changed_at = clock_timestamp(), changed_by = session_user
    where mode = $1
    returning mode
), forgotten as (
    update postrider.capture_slot
    set slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
    where exists (select from changed) and $1 = 'message'
)
select count(*) from changed
