-- Purpose: partitions of the outbox that have other names than migration 2 gave them. $1 its schema, $2 its table.
-- Locks:   access share on each partition, for a moment.
-- Plan:    reads the catalog only; at most 256 partitions.
-- Hazard:  what a partition is stands in its bound, whatever its name. One with another bound is no part of the ring.
select namespace.nspname::text as schema_name, class.relname::text as table_name, made.name as made_name,
    part.isleaf as is_leaf
from pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text))) as part
    join pg_class as class on class.oid = part.relid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    join pg_class as bucket on bucket.oid = case when part.isleaf then part.parentrelid else part.relid end
    cross join lateral (
        select $2 || '_b'
            || lpad(substring(pg_get_expr(bucket.relpartbound, bucket.oid) from 'remainder ([0-9]+)'), 2, '0')
            || case when part.isleaf
                then '_g' || substring(pg_get_expr(class.relpartbound, class.oid) from $$IN \('?([0-2])'?\)$$)
                else ''
            end as name
    ) as made
where part.level > 0 and (namespace.nspname <> $1 or class.relname <> made.name)
order by part.level, made.name
