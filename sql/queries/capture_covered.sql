-- Purpose: the cursors have passed all that had committed where the slot $1 begins.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  once it stands here, the stream is believed: the cursors are saved before.
update postrider.capture_slot
set delivered_lsn = slot_lsn
where slot_name = $1 and delivered_lsn is null
