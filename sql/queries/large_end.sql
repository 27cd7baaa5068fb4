-- Purpose: ends the taking up of a large message.
-- Locks:   row locks on what this transaction has written.
-- Plan:    reads the table, in which there is nothing else.
-- Hazard:  committed with synchronous_commit = on: the place in the log moves on behind it.
delete from postrider.large_part;
commit
