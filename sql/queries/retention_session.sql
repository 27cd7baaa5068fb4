-- Purpose: makes the check of retention_attempt.sql read by the index. Run once per session.
-- Locks:   none.
-- Plan:    leaves only the index scan on seq; a leaf's statistics say nothing (claim_session.sql).
-- Hazard:  without it the check reads the leaf from end to end while it holds the leaf's lock.
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_sort = off;
