-- Purpose: ends the backend that streams from the slot $1.
-- Locks:   none.
-- Plan:    one row.
-- Hazard:  only by whoever holds the instance's lock: then the slot is read for somebody who is gone,
--          and the server would notice that after wal_sender_timeout only. Only of our own login.
with login as materialized (select set_config('role', 'none', true))
select pg_terminate_backend(slot.active_pid)
from login
    cross join pg_replication_slots as slot
    join pg_stat_activity as reader on reader.pid = slot.active_pid
where slot.slot_name = $1 and reader.usename = session_user
