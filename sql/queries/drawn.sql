-- Purpose: the last value that the outbox's sequence gave out; 0 when it never did.
-- Locks:   access share on the sequence.
-- Plan:    one row.
-- Hazard:  a sequence that was never called reads as its start value.
select case when is_called then last_value else last_value - 1 end
from {sequence}
