-- Purpose: whether a part of an adopted table had rows before it became one: {table} where they are read, {part} its
--          object identifier, {attached_by} and {attached_at} the transaction and the command that made it one,
--          {was_there} whether another one, or a savepoint of it, had made the table, else {made_at} the command that
--          made it, the same where none can lie between.
-- Locks:   access share on what is read.
-- Plan:    reads the part once, where this role may, else the whole table; ends at the first such row.
-- Hazard:  a row that somebody else, or a savepoint, wrote before, while the transaction had its id already, has a higher
--          one, as what was written since has. So of a table that was there any row counts: one that was empty, and that
--          somebody writes into before this look, is read, and what the stream brings comes twice. Commands are numbered over
--          savepoints, too. What is near is asked here: to a look of before, a row that was written since would seem to
--          be of 2^32 transactions ago.
select exists (
    select from {table} as adopted_row
        cross join (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as id) as near
        cross join lateral (
            select near.id - ((near.id - adopted_row.xmin::text::bigint) & 4294967295) as id,
                near.id - ((near.id - {attached_by}::bigint) & 4294967295) as attached_by
        ) as written
    where adopted_row.tableoid = {part}::oid
        and ({was_there}
            or adopted_row.xmin::text::bigint < 3
            or written.id < written.attached_by
            or adopted_row.cmin::text::bigint > {made_at}::bigint
                and adopted_row.cmin::text::bigint < {attached_at}::bigint
            or written.id = written.attached_by and adopted_row.cmin::text::bigint < {attached_at}::bigint)
)
