-- Purpose: makes the check of table_waits.sql read by the index. Run in its session, before it.
-- Locks:   none.
-- Plan:    leaves only the index scan on seq; a leaf's statistics say nothing (claim_session.sql).
-- Hazard:  without it the check reads all retained rows, which takes minutes for tens of millions. What
--          the session asks besides is small.
set enable_seqscan = off;
set enable_bitmapscan = off;
