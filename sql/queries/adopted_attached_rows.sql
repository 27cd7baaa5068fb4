-- Purpose: whether a part of an adopted table had rows before it became one: {table} where they are read, {part} its
--          object identifier, {attached_by} and {attached_at} the transaction and the command that made it one, {near} a
--          transaction id of the present.
-- Locks:   access share on what is read.
-- Plan:    reads the part once, where this role may, else the whole table; ends at the first such row.
-- Hazard:  a row that somebody else wrote before, while the transaction had its id already, has a higher one. It is
--          found by its older neighbours.
select exists (
    select from {table} as adopted_row
        cross join lateral (
            select {near}::bigint - (({near}::bigint - adopted_row.xmin::text::bigint) & 4294967295) as id,
                {near}::bigint - (({near}::bigint - {attached_by}::bigint) & 4294967295) as attached_by
        ) as written
    where adopted_row.tableoid = {part}::oid
        and (adopted_row.xmin::text::bigint < 3
            or written.id < written.attached_by
            or written.id = written.attached_by and adopted_row.cmin::text::bigint < {attached_at}::bigint)
)
