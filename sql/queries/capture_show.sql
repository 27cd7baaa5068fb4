-- Purpose: how events are read, since when and by whose word; for people.
-- Locks:   access share on postrider.capture.
-- Plan:    one row.
-- Hazard:  none.
select mode, to_char(changed_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') as changed_at, changed_by
from postrider.capture
