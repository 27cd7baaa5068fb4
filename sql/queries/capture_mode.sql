-- Purpose: changes how events are read. $1 the mode that was seen, $2 the new one.
-- Locks:   row locks, for one short transaction.
-- Plan:    one row each.
-- Hazard:  running instances follow within a second: they drain, save, and begin anew.
--          A slot for rows is of no use for messages, nor the other way round: what is known of it is
--          forgotten, and it is made anew. Between poll and wal it stays: the cursors tell what it lacks.
with changed as (
    update postrider.capture
    set mode = $2, changed_at = clock_timestamp(), changed_by = session_user
    where mode = $1
    returning mode
), forgotten as (
    update postrider.capture_slot
    set slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
    where exists (select from changed) and 'message' in ($1, $2)
)
select count(*) from changed
