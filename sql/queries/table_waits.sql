-- Purpose: whether any row of the outbox is not published.
-- Locks:   access share on the partitions and on postrider.cursor, and as cursor_floor.sql.
-- Plan:    an index scan on seq per partition, above the lowest place of any cursor (cursor_floor.sql has the
--          reason); with the settings of leaf_session.sql.
-- Hazard:  rows that are parked wait, too, but not in the table.
select exists (
    select from postrider.events
    where seq > (select min({floor}) from postrider.cursor as saved)
    and not published and not parked)
