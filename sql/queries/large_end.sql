-- Purpose: ends the taking up of a large message.
-- Locks:   none. Plan: none.
-- Hazard:  committed with synchronous_commit = on: the place in the log moves on behind it.
commit
