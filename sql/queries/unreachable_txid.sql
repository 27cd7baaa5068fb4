-- Purpose: rows that were written by another transaction than they say: one whose id no transaction of this
--          cluster has had yet, or one that had ended when the row was written. $1 how many to name.
-- Locks:   access share on the outbox and on postrider.past_tick.
-- Plan:    reads all retained rows, so it runs with a statement_timeout; few of them need a second look.
-- Hazard:  a row that was written inside a savepoint bears a higher id in xmin than in txid, and that is right; so
--          does one that somebody updated, and it may have been published before. xmin has the lower half of
--          an id; the upper half is found right for rows of the last 2^31 transactions.
with present as (
    select pg_snapshot_xmax(pg_current_snapshot()) as next,
        greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
            pg_snapshot_xmin(pg_current_snapshot())::text::bigint) as near
)
select written.seq, written.id::text as id, written.txid::text as txid
from present
    cross join lateral (
        select seq, id, txid::xid8 as txid,
            (present.near - ((present.near - xmin::text::bigint) & 4294967295))::text::xid8 as writer
        from {outbox}
        where txid::xid8::xid <> xmin and xmin::text::bigint >= 3
    ) as written
    left join postrider.parked using (seq, id)
where parked.seq is null
    and (written.txid >= present.next
        or written.txid < (
            select oldest from postrider.past_tick
            where next < written.writer
            order by next desc
            limit 1)
        or written.txid < (
            select pg_snapshot_xmin(upto_snapshot) from postrider.cursor
            where upto_next < written.writer
            order by 1 desc
            limit 1))
order by written.seq
limit $1
