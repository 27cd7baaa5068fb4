-- Purpose: rows whose seq was not drawn after a tick, though their transaction began after it: cursors that had
--          passed the tick look above its floor alone. Not those that were read all the same, below a window, nor
--          those that will be. $1 how many to name.
-- Locks:   access share on the outbox, on postrider.past_tick, cursor and whole_range.
-- Plan:    per remembered tick a scan of the index on seq, between its floor and that of the tick before; with
--          the settings of leaf_session.sql. All retained rows are read, so it runs with a statement_timeout.
-- Hazard:  a little below its floor a range looks, too (src/order/tick.rs), and a new session further; such a row may
--          have been published. What was remembered before the sequence was set back says nothing.
with law as (
    select next, upto, coalesce(lag(upto) over (order by next), -9223372036854775808) as above
    from (
        select next, greatest(max(floor) over (order by next), -9223372036854775552) - 256 as upto
        from (
            select next, floor, storage, began from postrider.past_tick
            union
            select upto_next, upto_floor, upto_sequence, upto_began from postrider.cursor
        ) as tick
        where (storage, began) = (
            select upto_sequence, upto_began from postrider.cursor
            where upto_sequence is not null
            order by upto_next desc
            limit 1)
    ) as tick
)
select written.seq, written.id::text as id, written.txid::text as txid
from law
    cross join lateral (
        select seq, id, txid::xid8 as txid, tableoid
        from {outbox}
        where seq > law.above and seq <= law.upto and txid > law.next
    ) as written
    -- The bucket is read off the partition's name, which migration 2 gave it.
    join pg_class as leaf on leaf.oid = written.tableoid
    join postrider.cursor as saved on saved.bucket = substring(leaf.relname from '_b([0-9]+)_g[0-9]$')::smallint
    left join postrider.parked using (seq, id)
where parked.seq is null
    and pg_visible_in_snapshot(written.txid,
        coalesce(case when saved.window_of = saved.upto_next then saved.window_since end, saved.upto_snapshot))
    and not exists (
        select from postrider.whole_range as whole
        where whole.bucket = saved.bucket
            and pg_visible_in_snapshot(written.txid, whole.upto_snapshot)
            and not pg_visible_in_snapshot(written.txid, whole.from_snapshot))
order by written.seq
limit $1
