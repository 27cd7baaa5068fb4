-- Purpose: whether a tick is due, without assigning a transaction id.
-- Locks:   access share on the sequence.
-- Plan:    one row.
-- Hazard:  none; what it misses the next probe finds.
select case when is_called then last_value else last_value - 1 end, pg_current_snapshot()
from {sequence}
