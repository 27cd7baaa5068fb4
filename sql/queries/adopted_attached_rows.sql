-- Purpose: whether a part of an adopted table had rows before it became one: {table} where they are read, {part} its
--          object identifier, {attached_by} and {attached_at} the transaction and the command that made it one.
-- Locks:   access share on what is read.
-- Plan:    reads the part once, where this role may, else the whole table; ends at the first such row.
-- Hazard:  a row that somebody else wrote before, while the transaction had its id already, has a higher one. It is
--          found by its older neighbours. What is near is asked here: to a look of before, a row that was written since
--          would seem to be of 2^32 transactions ago.
select exists (
    select from {table} as adopted_row
        cross join (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as id) as near
        cross join lateral (
            select near.id - ((near.id - adopted_row.xmin::text::bigint) & 4294967295) as id,
                near.id - ((near.id - {attached_by}::bigint) & 4294967295) as attached_by
        ) as written
    where adopted_row.tableoid = {part}::oid
        and (adopted_row.xmin::text::bigint < 3
            or written.id < written.attached_by
            or written.id = written.attached_by and adopted_row.cmin::text::bigint < {attached_at}::bigint)
)
