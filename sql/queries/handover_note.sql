-- Purpose: writes down what {outbox} retains, all of which is published or parked.
-- Locks:   one row. Whoever runs it has the lock on the outbox.
-- Plan:    reads every partition from end to end.
-- Hazard:  it is told by count, highest number and a digest of all: a copy that has the same has the same events.
insert into postrider.handover (events, highest_seq, seq_sum, drawn, system_identifier)
select count(*), max(seq), {digest},
    (select coalesce(pg_sequence_last_value(pg_get_serial_sequence('{outbox}', 'seq')::regclass), 0)),
    (select system_identifier from pg_control_system())
from {outbox}
on conflict (singleton) do update
set events = excluded.events,
    highest_seq = excluded.highest_seq,
    seq_sum = excluded.seq_sum,
    drawn = excluded.drawn,
    system_identifier = excluded.system_identifier,
    recorded_at = clock_timestamp(),
    recorded_by = session_user
returning events, highest_seq
