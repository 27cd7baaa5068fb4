-- Purpose: forgets a slot of messages that is lost, so that a new one is made.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  what the slot had kept and nobody had read is lost; somebody has said so.
update postrider.capture_slot
set slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
where (select mode from postrider.capture) = 'message'
