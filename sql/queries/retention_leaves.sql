-- Purpose: the partitions of the outbox, by rising bucket.
-- Locks:   access share on each partition, for a moment.
-- Plan:    three partitions per bucket; reads the catalog only.
-- Hazard:  a partition may have another name than migration 2 gave it. One of several generations, or of none, is left alone.
select leaf.oid, leaf.oid::regclass::text as name, place.bucket::smallint as bucket, bound.generation::integer
from postrider.outbox
    cross join pg_partition_tree(to_regclass(format('%I.%I', schema_name, table_name))) as part
    join pg_class as leaf on leaf.oid = part.relid
    join pg_class as parent on parent.oid = part.parentrelid
    cross join substring(pg_get_expr(leaf.relpartbound, leaf.oid) from $$IN \('?([0-2])'?\)$$) as bound (generation)
    cross join substring(pg_get_expr(parent.relpartbound, parent.oid) from 'remainder ([0-9]+)') as place (bucket)
where part.isleaf and bound.generation is not null and place.bucket is not null
order by place.bucket::integer, bound.generation
