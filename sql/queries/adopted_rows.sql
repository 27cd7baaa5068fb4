-- Purpose: a condition for rows of an adopted table that may not be published: {known} whether the transaction
--          that wrote the row is known to be, {attached} which parts of the table were filled elsewhere, {pending}
--          which rows of these are to be published, as of those that were there at first.
-- Locks:   none of its own.
-- Plan:    a filter: the table is read once; the parts are looked up once.
-- Hazard:  a part that was detached and attached again is read again: nobody remembers it.
(
    not {known}
    or (adopted_row.tableoid in (select part.relid from ({attached}) as part) and ({pending}))
)
