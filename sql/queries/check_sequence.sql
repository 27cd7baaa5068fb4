-- Purpose: how far the outbox's sequence can count. $1 its name.
-- Locks:   access share on the sequence.
-- Plan:    one row.
-- Hazard:  one that gave out nothing yet has no last value.
select seqcycle as cycles, seqmax as maximum,
    coalesce(pg_sequence_last_value(seqrelid::regclass) > seqmax - seqincrement, false) as is_at_end
from pg_sequence
where seqrelid = $1::text::regclass
