-- Purpose: cursors as they were saved. $1 the buckets, or null for all.
-- Locks:   access share on postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  read it again on every connection; a cursor kept from before a failover hides rows.
select bucket, epoch, system_identifier, timeline, lsn, from_snapshot, upto_snapshot, upto_next, upto_floor,
    upto_ceiling, carry, "position", upto_sequence, upto_began, window_since,
    window_bound, window_of, postrider.is_saved_here(database_oid, cursor_oid) as is_saved_here
from postrider.cursor
where $1::smallint[] is null or bucket = any($1)
order by bucket
