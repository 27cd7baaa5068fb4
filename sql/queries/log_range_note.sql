-- Purpose: notes that the log has brought every row of the while in which it was read, whatever its seq, once the table
--          is polled again, for `postrider check`.
-- Locks:   row locks on postrider.whole_range, which nobody else reads but `postrider check`.
-- Plan:    a row per bucket, after a switch of the capture mode; else the end of a key.
-- Hazard:  before a later tick is remembered: then nothing tells any more when the log was read.
insert into postrider.whole_range (bucket, from_snapshot, upto_snapshot)
select saved.bucket, format('%s:%s:', past.next, past.next)::pg_snapshot, saved.from_snapshot
from postrider.cursor as saved
    cross join postrider.capture
    cross join (select next, noted_at from postrider.past_tick order by next desc limit 1) as past
where capture.mode = 'poll' and capture.changed_at > past.noted_at
    and pg_snapshot_xmax(saved.from_snapshot) > past.next
