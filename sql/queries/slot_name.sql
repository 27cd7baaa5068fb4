-- Purpose: takes note of a slot that is about to be made. $1 its name.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  what an older slot of ours had kept is of no use from here on: the new one begins later.
update postrider.capture_slot
set slot_name = $1, slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
