-- Purpose: remembers the latest saved tick, at most one a second; of those that are older than ten minutes
--          one a minute, for a day.
-- Locks:   row locks on postrider.past_tick, which nobody else reads but `postrider check`.
-- Plan:    the end of its key; a read of its 2,000 rows where something is noted.
-- Hazard:  without a wait for the disk: what is lost here is found out a second later.
begin;
set local synchronous_commit = off;
with noted as (
    insert into postrider.past_tick (next, oldest, floor, storage, began)
    select upto_next, pg_snapshot_xmin(upto_snapshot), upto_floor, upto_sequence, upto_began
    from postrider.cursor
    where upto_sequence is not null and upto_began is not null
        and upto_next > coalesce((select next from postrider.past_tick order by next desc limit 1), '0')
        and coalesce(
            (select noted_at from postrider.past_tick order by next desc limit 1)
                not between clock_timestamp() - interval '900 milliseconds' and clock_timestamp(), true)
    order by upto_next desc
    limit 1
    on conflict do nothing
    returning next
)
delete from postrider.past_tick as past
where exists (select from noted)
    and (past.noted_at < now() - interval '1 day'
        or past.noted_at < now() - interval '10 minutes'
            and exists (
                select from postrider.past_tick as before
                where before.next < past.next
                    and date_trunc('minute', before.noted_at) = date_trunc('minute', past.noted_at)));
commit;
