-- Purpose: remembers that the log is read from the latest saved tick on: it brings every row that comes before the next
--          tick that is remembered, whatever its seq.
-- Locks:   row locks on postrider.past_tick.
-- Plan:    the end of its key; a row per bucket.
-- Hazard:  before the stream begins. Ticks behind the one that was saved published nothing. The row is taken away before
--          it is written anew, as the role may update none.
with saved as materialized (
    select upto_next, upto_snapshot, upto_floor, upto_sequence, upto_began from postrider.cursor
    where upto_sequence is not null and upto_began is not null
    order by upto_next desc
    limit 1
), behind as (
    delete from postrider.past_tick where next >= (select upto_next from saved)
    returning next
)
insert into postrider.past_tick (next, oldest, floor, storage, began, log_begins)
select upto_next, pg_snapshot_xmin(upto_snapshot), upto_floor, upto_sequence, upto_began, true
from saved
    cross join (select count(*) from behind) as gone
