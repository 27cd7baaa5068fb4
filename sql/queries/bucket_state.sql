-- Purpose: per bucket, who owns it and how far it is published; for people (status, check).
-- Locks:   access share on postrider.cursor, and as cursor_floor.sql.
-- Plan:    at most 64 rows.
-- Hazard:  an unpublished row lies above floor, and most that wait lie above recent_floor. The first range of
--          a lineage has no upper bound, so position may stand beyond all rows. Cursors of another cluster or database, or
--          of a later state of this one, say nothing about its rows.
select bucket, epoch, owner,
    case when "position" = 9223372036854775807 then upto_floor else greatest("position", 0) end as "position",
    case when owner is not null then
        date_part('epoch', clock_timestamp() - saved_at)
    end as saved_age_seconds,
    floor, greatest(floor, greatest(upto_floor, -9223372036854775552) - 256) as recent_floor,
    system_identifier is null
        or (postrider.is_saved_here(database_oid, cursor_oid)
            and system_identifier = (select system_identifier from pg_control_system())
            and lsn <= case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                else pg_current_wal_insert_lsn() end) as is_of_this_history
from (select saved.*, {floor} as floor from postrider.cursor as saved) as saved
order by bucket
