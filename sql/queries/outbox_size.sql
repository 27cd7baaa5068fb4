-- Purpose: how much room each generation takes. $1 names of the bucket tables, $2 seconds of a
--          generation.
-- Locks:   access share on each partition, for a moment.
-- Plan:    three partitions per bucket.
-- Hazard:  the generation is read off the partition's name, which migration 2 gave it.
select right(class.relname, 1)::integer as generation,
    right(class.relname, 1)::integer = (date_part('epoch', now())::bigint / $2::integer) % 3
        as is_current,
    count(*) as leaves,
    count(*) filter (where pg_relation_size(leaf.relid) > 0) as filled_leaves,
    coalesce(sum(pg_total_relation_size(leaf.relid)), 0)::bigint as bytes
from unnest($1::text[]) as bucket_table, pg_partition_tree(to_regclass(bucket_table)) as leaf
    join pg_class as class on class.oid = leaf.relid
where leaf.isleaf
group by 1, 2
order by 1
