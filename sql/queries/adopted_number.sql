-- Purpose: numbers for rows that are copied: how many were given before. $1 how many are wanted.
-- Locks:   one row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  numbers of a copy that breaks off are used up, too: what of it is parked keeps them.
update postrider.capture_slot
set copied_rows = copied_rows + $1
returning copied_rows - $1 as given_before
