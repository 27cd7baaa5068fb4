-- Purpose: the partitions of the outbox that hold rows, each with its bucket, and whether its rows are in the log.
--          $1 the outbox, quoted.
-- Locks:   none.
-- Plan:    a few catalog rows per partition.
-- Hazard:  by object identifiers and bounds, as names change. A foreign table is in the log of another server.
with recursive part as (
    select to_regclass($1::text)::oid as relid, null::integer as bucket
    union all
    select edge.inhrelid,
        coalesce(part.bucket,
            substring(pg_get_expr(class.relpartbound, class.oid) from 'remainder ([0-9]+)')::integer)
    from part
        join pg_inherits as edge on edge.inhparent = part.relid
        join pg_class as class on class.oid = edge.inhrelid
)
select part.relid, part.bucket, namespace.nspname::text as schema_name, class.relname::text as table_name,
    class.relkind = 'f' as is_foreign,
    class.relpersistence <> 'p' as is_unlogged
from part
    join pg_class as class on class.oid = part.relid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where class.relkind in ('r', 'f')
order by part.bucket, class.relname
