-- Purpose: the partitions of the outbox. $1 names of the bucket tables, by rising bucket.
-- Locks:   access share on each partition, for a moment.
-- Plan:    three partitions per bucket; reads the catalog only.
-- Hazard:  the generation is read off the partition's name, which migration 2 gave it.
select tables.place - 1 as place, leaf.oid, leaf.oid::regclass::text as name,
    right(leaf.relname, 1)::integer as generation
from unnest($1::text[]) with ordinality as tables (name, place),
    pg_partition_tree(to_regclass(tables.name)) as part
    join pg_class as leaf on leaf.oid = part.relid
where part.isleaf
order by tables.place, leaf.relname
