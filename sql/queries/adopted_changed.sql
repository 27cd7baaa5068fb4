-- Purpose: the columns of a table that were changed by transactions which are not published: $1 the table, quoted; $2
--          the snapshot of what is published.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  a row of the catalog keeps the lower half of a transaction id; the upper half is found right for changes less
--          than 2^32 transactions ago. What was changed says nothing: the name, the type, or only a default.
select changed.name
from (
        select attname::text as name, attnum,
            near.id - ((near.id - column_.xmin::text::bigint) & 4294967295) as id
        from pg_attribute as column_,
            (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as id) as near
        where attrelid = to_regclass($1::text)
            and attnum > 0
            and not attisdropped
    ) as changed
where changed.id >= 3
    and not pg_visible_in_snapshot(changed.id::text::xid8, $2)
order by attnum
