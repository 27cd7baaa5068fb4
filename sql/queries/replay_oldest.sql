-- Purpose: the oldest event that {outbox} retains, by seq.
-- Locks:   access share on the outbox.
-- Plan:    the first row of each partition's index.
-- Hazard:  none.
select seq, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') as written, created_at
from {outbox}
order by seq
limit 1
