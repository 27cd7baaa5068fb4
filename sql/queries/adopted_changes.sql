-- Purpose: updates and deletes of an adopted table, as its statistics count them. $1 the table, quoted.
-- Locks:   none.
-- Plan:    statistics of a table and its partitions.
-- Hazard:  counted since the statistics were reset, also before the table was adopted. The stream does
--          not bring them at all.
select coalesce(sum(statistics.n_tup_upd), 0)::bigint as updates,
    coalesce(sum(statistics.n_tup_del), 0)::bigint as deletes
from pg_partition_tree(to_regclass($1::text)) as part
    join pg_stat_all_tables as statistics on statistics.relid = part.relid
