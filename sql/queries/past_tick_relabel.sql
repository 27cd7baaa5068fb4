-- Purpose: a remembered tick is the first of another lineage than was thought when it was made: the sequence was set
--          back. $1 its own transaction. Nothing of it is kept where it is void; $2 its lineage, else null.
-- Locks:   row locks on postrider.past_tick.
-- Plan:    one key lookup.
-- Hazard:  without it rows that the new lineage gave numbers to would be judged by those of the old one.
with former as (
    delete from postrider.past_tick where next = $1::xid8
    returning next, oldest, floor, storage, noted_at
)
insert into postrider.past_tick (next, oldest, floor, storage, began, noted_at)
select next, oldest, floor, storage, $2::xid8, noted_at
from former
where $2::xid8 is not null
