-- Purpose: what a look sees, which the next one need not show.
-- Locks:   none.
-- Plan:    none.
-- Hazard:  read in the transaction of the look, which must be repeatable read.
select pg_current_snapshot()
