-- Purpose: remembers the latest saved tick, at most one a second: of an outbox at rest the ticker remembers none
--          (tick_remembered.sql).
-- Locks:   a row lock on a new row of postrider.past_tick.
-- Plan:    the end of its key.
-- Hazard:  without a wait for the disk: what is lost here is found out a second later.
begin;
set local synchronous_commit = off;
insert into postrider.past_tick (next, oldest, floor, storage, began)
select upto_next, pg_snapshot_xmin(upto_snapshot), upto_floor, upto_sequence, upto_began
from postrider.cursor
where upto_sequence is not null and upto_began is not null
    and upto_next > coalesce((select next from postrider.past_tick order by next desc limit 1), '0')
    and coalesce(
        (select log_begins or noted_at not between clock_timestamp() - interval '900 milliseconds' and clock_timestamp()
        from postrider.past_tick order by next desc limit 1), true)
order by upto_next desc
limit 1
on conflict do nothing;
commit;
