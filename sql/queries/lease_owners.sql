-- Purpose: who owns each bucket, under which epoch.
-- Locks:   access share on postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  read it before lease_live.sql: an instance that took a bucket before this was alive then.
select bucket, epoch, owner
from postrider.cursor
order by bucket
