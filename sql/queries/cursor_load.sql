-- Purpose: all cursors as they were saved.
-- Locks:   access share on postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  read it again on every connection; a cursor kept from before a failover hides rows.
select bucket, system_identifier, timeline, lsn, from_snapshot, upto_snapshot, upto_next, upto_floor,
    upto_ceiling, carry, "position"
from postrider.cursor
order by bucket
