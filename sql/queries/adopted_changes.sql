-- Purpose: updates and deletes of an adopted table, as its statistics count them. $1 its schema,
--          $2 the table.
-- Locks:   none.
-- Plan:    statistics of a table and its partitions.
-- Hazard:  counted since the statistics were reset, also before the table was adopted. The stream does
--          not bring them at all. By names: a role without rights on the schema may look, too.
select coalesce(sum(statistics.n_tup_upd), 0)::bigint as updates,
    coalesce(sum(statistics.n_tup_del), 0)::bigint as deletes
from pg_class as class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    cross join lateral pg_partition_tree(class.oid::regclass) as part
    join pg_stat_all_tables as statistics on statistics.relid = part.relid
where namespace.nspname = $1::text and class.relname = $2::text
