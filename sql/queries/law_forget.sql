-- Purpose: forgets what the rows that are retained are not judged by any more: ticks and ranges of before the time since
--          which each partition is filled; ticks of before stay for a day. Of those that are older than ten minutes one a
--          second is kept, of those of before two hours one a minute.
-- Locks:   row locks on postrider.past_tick and whole_range.
-- Plan:    reads both from end to end, and a size per partition; sorts the ticks that are older than ten minutes once. So
--          many ticks are forgotten at a time that it takes less than a second.
-- Hazard:  a partition that is empty now, and of which no row is committed, gets rows of transactions that are open or
--          to come. Of one that was not emptied since this was remembered nothing is known: all is kept. By fewer ticks
--          less is found, and nothing is found that was read: but the last of a lineage, and those around the time in
--          which the log was read, must stay.
with needed as materialized (
    select coalesce(
            case when pg_relation_size(leaf.relid) = 0 then pg_snapshot_xmin(pg_current_snapshot()) end,
            (select pg_snapshot_xmin(upto_snapshot) from postrider.whole_range
            where whole_range.leaf = leaf.relid::oid and seq is null
            order by noted_at desc
            limit 1),
            '0'::xid8) as since
    from postrider.outbox
        cross join lateral pg_partition_tree(to_regclass(format('%I.%I', schema_name, table_name))) as leaf
    where leaf.isleaf
    order by since
    limit 1
), judge as materialized (
    select next from postrider.past_tick
    where next <= (select since from needed)
    order by next desc
    limit 1
), ranges as (
    delete from postrider.whole_range
    where leaf is null
        and pg_snapshot_xmax(upto_snapshot) <= (select since from needed)
        and (buckets is not null or noted_at < now() - interval '2 days')
), thinned as (
    select next from (
        select next, is_edge,
            row_number() over (
                partition by storage, began, undrawn is null,
                    date_trunc(case when noted_at < now() - interval '2 hours' then 'minute' else 'second' end, noted_at)
                order by next) as place
        from (
            select next, storage, began, undrawn, noted_at,
                (lead(began) over by_next <> began or lead(storage) over by_next <> storage
                    or log_begins or lag(log_begins) over by_next) is true as is_edge
            from postrider.past_tick
            window by_next as (order by next)
        ) as past
        where noted_at < now() - interval '10 minutes'
    ) as placed
    where place > 1 and not is_edge
    order by next
    limit 20000
), forgotten as (
    select next from thinned
    union
    (select next from postrider.past_tick
    where next < (select next from judge) and noted_at < now() - interval '1 day'
    order by next
    limit 20000)
)
delete from postrider.past_tick as past
using forgotten
where past.next = forgotten.next
