-- Purpose: what is taken up stays, if the message turns out to be no event.
-- Locks:   none. Plan: none.
-- Hazard:  none.
savepoint taken_up
