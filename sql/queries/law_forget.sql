-- Purpose: forgets what the rows that are retained are not judged by any more: ticks and ranges of before the time since
--          which each partition is filled. Of ticks one a minute stays for a day.
-- Locks:   row locks on postrider.past_tick and whole_range.
-- Plan:    reads both from end to end, and a size per partition.
-- Hazard:  a partition that is empty now, and of which no row is committed, gets rows of transactions that are open or
--          to come. Of one that was not emptied since this was remembered nothing is known: all is kept.
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
)
delete from postrider.past_tick as past
where past.next < (select next from judge)
    and (past.noted_at < now() - interval '1 day'
        or past.noted_at < now() - interval '10 minutes'
            and exists (
                select from postrider.past_tick as before
                where before.next < past.next
                    and date_trunc('minute', before.noted_at) = date_trunc('minute', past.noted_at)))
