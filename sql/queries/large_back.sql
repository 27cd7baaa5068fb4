-- Purpose: back to what is taken up.
-- Locks:   none. Plan: none.
-- Hazard:  none.
rollback to savepoint taken_up
