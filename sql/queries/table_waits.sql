-- Purpose: whether any row of the outbox is not published.
-- Locks:   access share on the partitions and on postrider.cursor.
-- Plan:    an index scan on seq per leaf, above the lowest place of any cursor (bucket_state.sql has the
--          reason); with the settings of leaf_session.sql.
-- Hazard:  rows that are parked wait, too, but not in the table.
select exists (
    select from postrider.events
    where seq > (
        select min(least("position", upto_floor,
            (select min(carry[index]) from generate_series(3, cardinality(carry), 3) as index)))
        from postrider.cursor)
    and not published and not parked)
