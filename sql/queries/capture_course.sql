-- Purpose: takes note of the course of the outbox's tables, once everything is published that the log did not bring. $1
--          the slot, $2 the publication's fingerprint with it, $3 what stood there.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  once it stands here, the stream is believed: the cursors are saved before.
update postrider.capture_slot
set publication = $2
where slot_name = $1 and publication = $3
