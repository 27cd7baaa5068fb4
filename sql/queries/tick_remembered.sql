-- Purpose: the tick: as tick.sql, and remembered in the same transaction, unless hardly anything was drawn since the last
--          one that is remembered: before a partition is emptied its rows are judged by these (unread.sql).
--          $1 the floor that was remembered last, $2 the first tick of the lineage.
-- Locks:   access share on the sequence, a row lock on a new row of postrider.past_tick.
-- Plan:    as tick.sql, and one row.
-- Hazard:  as tick.sql. The floor is read before the transaction has its id: whoever comes later draws above it. It is
--          as durable as the tick, so no range begins at a tick that is forgotten. 128 is less than what a range
--          looks below its bound (MARGIN_MIN in src/order/tick.rs), and as much as unread.sql allows for.
with drawn as materialized (
    select coalesce(pg_sequence_last_value({sequence}::regclass), 0) as floor,
        pg_relation_filenode({sequence}::regclass)::bigint as storage
), noted as (
    insert into postrider.past_tick (next, oldest, floor, storage, began)
    select pg_current_xact_id(), pg_snapshot_xmin(pg_current_snapshot()), floor, storage, $2::xid8
    from drawn
    where (floor - $1::bigint between 0 and 127) is not true
    -- One of this id is of another server; `postrider check` names what came from there.
    on conflict do nothing
    returning floor
)
select pg_current_snapshot(), pg_current_xact_id(), pg_logical_emit_message(true, 'postrider.tick', ''),
    (select floor from noted)
from drawn
