-- Purpose: whether a tick is due, without assigning a transaction id.
-- Locks:   access share on the sequence.
-- Plan:    one row.
-- Hazard:  what it misses the next probe finds; drawn.sql says why it reads the sequence in this way.
select coalesce(pg_sequence_last_value({sequence}::regclass), 0), pg_current_snapshot()
