-- Purpose: takes note of a slot that was just made. $1 its name, $2 the snapshot of the transactions that
--          had committed where it begins, $3 where that is, $4 the publication's fingerprint.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  nothing was delivered by it yet: null until the cursors have passed the snapshot.
update postrider.capture_slot
set slot_name = $1, slot_snapshot = $2, slot_lsn = $3, publication = $4, delivered_lsn = null
