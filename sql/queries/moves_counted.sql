-- Purpose: whether any row of the outbox was ever deleted, or moved out of its partition. $1 names of the bucket tables.
-- Locks:   access share on each partition, for a moment.
-- Plan:    counts of the server's own, no row.
-- Hazard:  a standby counts nothing, and a server that has crashed begins anew.
select coalesce(sum(pg_stat_get_tuples_deleted(part.relid)), 0) > 0 as are_any
from unnest($1::text[]) as tables (name), pg_partition_tree(to_regclass(tables.name)) as part
where part.isleaf
