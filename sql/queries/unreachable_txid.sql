-- Purpose: rows that were not written by the transaction that they name: its id no transaction of this cluster has had
--          yet, or it had ended before their seq was drawn. $1 how many to name.
-- Locks:   access share on the outbox and on postrider.past_tick.
-- Plan:    reads all retained rows, so it runs with a statement_timeout; those that another transaction wrote are
--          judged by binary search.
-- Hazard:  that xmin is another proves nothing: a row that was updated, rewritten with its table, or written inside a
--          savepoint bears its own txid and seq. So only what these two say against each other counts. What ended
--          before a tick has drawn before the second tick after it began. Copied rows with a txid and a seq that go
--          together are not found.
with judged as materialized (
    select array_agg(oldest::text::xid8 order by next) as oldests, array_agg(drawn order by next) as drawn
    from (
        select next,
            max(oldest::text::bigint) over (order by next) as oldest,
            case when count(*) over (order by next rows between current row and 2 following) = 3 then
                max(floor) over (order by next rows between unbounded preceding and 2 following)
            end as drawn
        from postrider.past_tick
    ) as tick
)
select written.seq, written.id::text as id, written.txid::text as txid
from judged
    cross join lateral (
        select seq, id, txid::xid8 as txid
        from {outbox}
        where txid::xid8::xid <> xmin and xmin::text::bigint >= 3
    ) as written
    left join postrider.parked using (seq, id)
where parked.seq is null
    and (written.txid >= pg_snapshot_xmax(pg_current_snapshot())
        or written.seq > judged.drawn[width_bucket(written.txid, judged.oldests) + 1])
order by written.seq
limit $1
