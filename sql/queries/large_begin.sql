-- Purpose: begins to take up an event that is too large to be read at once: its parts gather in a table of the
--          session, which goes with the transaction.
-- Locks:   none that anybody else holds.
-- Plan:    none.
-- Hazard:  the transaction stays open while the event comes. Nothing of it is written to the log.
begin;
create temporary table postrider_large (part integer, value integer, content bytea) on commit drop
