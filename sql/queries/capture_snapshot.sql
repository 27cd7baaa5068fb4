-- Purpose: takes note of where rows of adopted tables are copied: $2 the snapshot, $3 its place in the log, of the slot $1.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  the slot is another's than that of the snapshot, and goes on. What is delivered stays: until the copy is
--          done, the stream goes on behind it.
update postrider.capture_slot
set slot_snapshot = $2, slot_lsn = $3
where slot_name = $1
