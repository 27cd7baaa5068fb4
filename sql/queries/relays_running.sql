-- Purpose: how many relays have a session with this database, whether they have a lease or not.
-- Locks:   none.
-- Plan:    reads the sessions of the server.
-- Hazard:  by the name under which a relay saves its cursors, which anybody may bear: it is told to people, and decides
--          nothing.
select count(*) as relays
from pg_stat_activity
where datname = current_database() and application_name = 'postrider cursors'
