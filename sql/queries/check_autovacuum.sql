-- Purpose: postrider's own tables, which are updated all the time, and whether somebody cleans up behind it.
-- Locks:   none.
-- Plan:    a few catalog rows and counters.
-- Hazard:  the counters are estimates, and begin anew after a crash.
select class.relname::text as name,
    current_setting('autovacuum') = 'on' and current_setting('track_counts') = 'on' as server_cleans,
    coalesce((select bool_and(option_value::boolean)
        from pg_options_to_table(class.reloptions)
        where option_name = 'autovacuum_enabled'), true) as is_cleaned,
    pg_stat_get_dead_tuples(class.oid) as dead_rows,
    pg_table_size(class.oid) as size_bytes
from pg_class as class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where namespace.nspname = 'postrider' and class.relkind = 'r'
order by class.relname
