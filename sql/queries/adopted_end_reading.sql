-- Purpose: ends the session that copies adopted tables. $1 its backend.
-- Locks:   none.
-- Plan:    one row of the sessions.
-- Hazard:  a backend's number may be another's by now: only a replication session of this role and of ours counts.
select pg_terminate_backend(pid) as is_ended
from pg_stat_activity
where pid = $1
    and usename = current_user
    and backend_type = 'walsender'
    and application_name like 'postrider %'
