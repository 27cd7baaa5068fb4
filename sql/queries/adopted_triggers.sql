-- Purpose: the triggers that fire when rows of a table are marked. $1 the table, quoted.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  partitions may have more of their own.
select trigger.tgname::text as name
from pg_trigger as trigger
where trigger.tgrelid = to_regclass($1::text)
    and not trigger.tgisinternal
    and trigger.tgenabled in ('O', 'A')
    -- TRIGGER_TYPE_UPDATE
    and trigger.tgtype & 16 <> 0
order by 1
