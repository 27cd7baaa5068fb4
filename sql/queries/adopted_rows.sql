-- Purpose: a condition for rows of an adopted table that are not published: {passed} the snapshot of what
--          is, {near} a transaction id from which the whole id of a row's is found.
-- Locks:   none of its own.
-- Plan:    a filter: the table is read once.
-- Hazard:  a row keeps the lower half of a transaction id. The upper half is found right for rows whose
--          last change is less than 2^32 transactions ago.
not pg_visible_in_snapshot(
    ({near}::bigint - (({near}::bigint - adopted_row.xmin::text::bigint) & 4294967295))::text::xid8,
    {passed}::pg_snapshot)
