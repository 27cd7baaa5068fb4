-- Purpose: whether the server has room for one more replication slot.
-- Locks:   none.
-- Plan:    a row for each slot of the server.
-- Hazard:  somebody else may take it.
select count(*) < current_setting('max_replication_slots')::bigint as has_room
from pg_replication_slots
