-- Purpose: makes the claim keep its plan. Run once per claiming session.
-- Locks:   none.
-- Plan:    leaves only the index scan on seq. The planner's statistics of a partition are those of an
--          emptied table, or none at all; with them it would read the partition from end to end.
-- Hazard:  a generic plan is safe only because no other plan is left to choose.
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_sort = off;
set plan_cache_mode = force_generic_plan;
