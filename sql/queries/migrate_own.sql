-- Purpose: whether this transaction has applied the first migration, or found it there.
-- Locks:   none.
-- Plan:    one row.
-- Hazard:  the step does nothing, and fails nothing, where another session has applied it meanwhile.
select exists (
    select from postrider.migration where version = 0 and xmin = pg_current_xact_id()::xid)
