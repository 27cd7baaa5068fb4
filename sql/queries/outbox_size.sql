-- Purpose: how much room each generation takes. $1 names of the bucket tables, $2 seconds of a
--          generation.
-- Locks:   access share on each partition, for a moment.
-- Plan:    three partitions per bucket.
-- Hazard:  a partition may have another name than migration 2 gave it. One of several generations, or of none, is not of the ring.
select bound.generation::integer,
    bound.generation::integer = (date_part('epoch', now())::bigint / $2::integer) % 3
        as is_current,
    count(*) as leaves,
    count(*) filter (where pg_relation_size(leaf.relid) > 0) as filled_leaves,
    coalesce(sum(pg_total_relation_size(leaf.relid)), 0)::bigint as bytes
from unnest($1::text[]) as bucket_table, pg_partition_tree(to_regclass(bucket_table)) as leaf
    join pg_class as class on class.oid = leaf.relid
    cross join substring(pg_get_expr(class.relpartbound, class.oid) from $$IN \('?([0-2])'?\)$$) as bound (generation)
where leaf.isleaf and bound.generation is not null
group by 1, 2
order by 1
