-- Purpose: the number of the outbox's sequence. $1 its name, quoted.
-- Locks:   none.
-- Plan:    one lookup.
-- Hazard:  the name may be another a moment later; the number stays.
select $1::text::regclass::oid as number
