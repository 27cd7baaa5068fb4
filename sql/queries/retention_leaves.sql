-- Purpose: the partitions of the outbox. $1 names of the bucket tables, by rising bucket.
-- Locks:   access share on each partition, for a moment.
-- Plan:    three partitions per bucket; reads the catalog only.
-- Hazard:  a partition may have another name than migration 2 gave it. One of several generations, or of none, is left alone.
select tables.place - 1 as place, leaf.oid, leaf.oid::regclass::text as name,
    bound.generation::integer
from unnest($1::text[]) with ordinality as tables (name, place),
    pg_partition_tree(to_regclass(tables.name)) as part
    join pg_class as leaf on leaf.oid = part.relid
    cross join substring(pg_get_expr(leaf.relpartbound, leaf.oid) from $$IN \('?([0-2])'?\)$$) as bound (generation)
where part.isleaf and bound.generation is not null
order by tables.place, generation
