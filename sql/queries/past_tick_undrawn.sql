-- Purpose: remembers with a tick which transactions were open at it and had drawn nothing. $1 its own transaction, $2 its
--          oldest open one, $3 floor, $4 storage, $5 first tick of the lineage, $6 the transactions.
-- Locks:   row locks on postrider.past_tick.
-- Plan:    one key lookup.
-- Hazard:  before the tick is handed on: a range that brings such a transaction begins at this floor. The row is taken
--          away before it is written anew, as the role may update none.
with former as (
    delete from postrider.past_tick where next = $1::xid8
    returning next
)
insert into postrider.past_tick (next, oldest, floor, storage, began, undrawn)
select $1::xid8, $2::xid8, $3::bigint, $4::bigint, $5::xid8, $6::xid8[]
from (select count(*) from former) as gone
