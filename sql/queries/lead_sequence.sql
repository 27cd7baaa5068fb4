-- Purpose: leads the sequence of {outbox} behind a number that consumers have seen, so that no later event gets it
--          again. $1 the number. Answers the last number that counts as given out.
-- Locks:   the sequence's own, for a moment.
-- Plan:    one call.
-- Hazard:  it only goes up; what it passes over is given to nobody.
select setval(sequence, greatest($1::bigint, coalesce(pg_sequence_last_value(sequence), 0))) as last
from (select pg_get_serial_sequence('{outbox}', 'seq')::regclass as sequence) as found
