-- Purpose: the last value that the outbox's sequence gave out, and what the law of ticks rests on: that it
--          gives out one value at a time, upwards, and that nobody has set it back.
--          `drawn` is 0 when none was given out, and null for a role that may not read the sequence.
-- Locks:   access share on the sequence, and for a moment the lock on its page.
-- Plan:    one row; a key lookup in pg_sequence.
-- Hazard:  `select last_value` will not do. nextval writes a value up to 32 ahead into the page, logs
--          it, and only then writes the one that it gives out; it holds the page's lock meanwhile, and
--          a scan reads without it (nextval_internal in PostgreSQL's sequence.c). A floor that is read
--          too high loses rows. This function takes the lock. From PostgreSQL 18 on it gives null, and no
--          error, to a role that may not read the sequence.
--          The storage changes when the sequence is made again by RESTART, TRUNCATE with RESTART IDENTITY or
--          another ALTER SEQUENCE, which wait until all transactions that drew have ended.
select
    case when has_sequence_privilege({sequence}::regclass, 'select, usage')
        then coalesce(pg_sequence_last_value({sequence}::regclass), 0)
    end as drawn,
    pg_relation_filenode({sequence}::regclass)::bigint as storage,
    seqcache as cache,
    seqincrement as increment
from pg_sequence
where seqrelid = {sequence}::regclass
