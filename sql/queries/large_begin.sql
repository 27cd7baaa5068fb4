-- Purpose: begins to take up an event that is too large to be read at once: its parts gather in a table that nobody
--          else sees them in.
-- Locks:   none. Plan: none.
-- Hazard:  the transaction stays open while the event comes. Nothing of it is written to the log.
begin
