-- Purpose: the last value that the outbox's sequence gave out; 0 when it never did.
-- Locks:   access share on the sequence, and for a moment the lock on its page.
-- Plan:    one row.
-- Hazard:  `select last_value` will not do. nextval writes a value up to 32 ahead into the page, logs
--          it, and only then writes the one that it gives out; it holds the page's lock meanwhile, and
--          a scan reads without it (nextval_internal in PostgreSQL's sequence.c). A floor that is read
--          too high loses rows. This function takes the lock.
select coalesce(pg_sequence_last_value({sequence}::regclass), 0)
