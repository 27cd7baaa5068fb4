-- Purpose: how much of the ring of generations is filled. $1 the names of the bucket tables, $2 seconds of a generation.
-- Locks:   access share on each partition, for a moment.
-- Plan:    three partitions per bucket; their sizes, no row.
-- Hazard:  a partition that was dropped meanwhile has no size. One of several generations, or of none, is not of the ring.
select bound.generation::integer,
    count(*) as partitions,
    count(*) filter (where pg_relation_size(leaf.oid) > 0) as filled,
    coalesce(sum(pg_total_relation_size(leaf.oid)), 0)::bigint as size_bytes,
    (date_part('epoch', now())::bigint / $2 % 3)::integer as present,
    date_part('epoch', now())::bigint % $2 as present_since_seconds
from unnest($1::text[]) as tables (name),
    pg_partition_tree(to_regclass(tables.name)) as part
    join pg_class as leaf on leaf.oid = part.relid
    cross join substring(pg_get_expr(leaf.relpartbound, leaf.oid) from $$IN \('?([0-2])'?\)$$) as bound (generation)
where part.isleaf and bound.generation is not null
group by 1
order by 1
