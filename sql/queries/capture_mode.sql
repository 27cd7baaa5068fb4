-- Purpose: changes how events are read. $1 the mode that was seen, $2 the new one.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  running instances follow within a second: they drain, save, and begin anew.
--          A slot that was left is not confirmed any more; where it begins is unknown to nobody, so
--          what is known of it stays.
update postrider.capture
set mode = $2, changed_at = clock_timestamp(), changed_by = session_user
where mode = $1
