-- Purpose: what the outbox's law rests on is written down where it can be compared: which sequence gave
--          out the values up to which a cursor looks.
-- Locks:   exclusive on postrider.cursor, which no application reads or writes, for a moment.
-- Hazard:  a relay of an earlier version that still runs saves cursors without these columns.

-- The sequence's storage, and the transaction id of the tick that last saw it set back. Bounds on seq can
-- be compared only between ticks of one lineage (src/tick.rs). Null where it is not known.
alter table postrider.cursor
    add column upto_sequence bigint,
    add column upto_set_back xid8;
