-- Purpose: drops a slot that nobody reads, and forgets it. $1 its name.
-- Locks:   the slot's own, a row lock. Comes behind slot_lock.sql.
-- Plan:    one row each.
-- Hazard:  only while the outbox is polled: the cursors then know all that is published. The slot of a
--          maker that has died is active until it is made. An update returns what it has written: the
--          name is null by then. The right to replicate is the login's own.
with forgotten as (
    update postrider.capture_slot
    set slot_name = null, slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
    where slot_name = $1 and (select mode from postrider.capture) = 'poll'
        and not exists (select from pg_replication_slots where slot_name = $1 and active)
    returning $1::text as slot_name
),
login as materialized (select forgotten.slot_name, set_config('role', 'none', true) from forgotten)
select pg_drop_replication_slot(slot.slot_name)
from pg_replication_slots as slot
    cross join login
where slot.slot_name = $1
