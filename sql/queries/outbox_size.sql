-- Purpose: how much room the outbox takes. $1 names of the bucket tables.
-- Locks:   access share on each leaf, for a moment.
-- Plan:    three leaves per bucket.
-- Hazard:  none.
select count(*) as leaves, coalesce(sum(pg_total_relation_size(leaf.relid)), 0)::bigint as bytes
from unnest($1::text[]) as bucket_table, pg_partition_tree(to_regclass(bucket_table)) as leaf
where leaf.isleaf
