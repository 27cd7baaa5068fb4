-- Purpose: makes the checks of retention_attempt.sql and table_waits.sql read by the index. Run once in
--          their session, before them.
-- Locks:   none.
-- Plan:    leaves only the index scan on seq; a partition's statistics say nothing (claim_session.sql).
-- Hazard:  without it retention reads the partition from end to end while it holds the partition's lock, and the
--          look for rows that wait reads all retained rows, which takes minutes for tens of millions.
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_sort = off;
