-- Purpose: the parts of an adopted table, {root} its name as a constant, that became parts in a transaction that is
--          not {known} to be published: partitions and inheriting children, of whatever depth. What was in them
--          before did not come in the stream.
-- Locks:   none.
-- Plan:    a few catalog rows per part.
-- Hazard:  a table that is made as a part is among them, too, until the transaction that made it is published.
--          Temporary tables are nobody else's.
with recursive part as (
    select edge.inhrelid as relid, edge.xmin::text as attached_by, edge.cmin::text as attached_at,
        {known} as is_known
    from pg_inherits as edge
    where edge.inhparent = to_regclass({root})
    union all
    select edge.inhrelid,
        case when own.is_known then part.attached_by else edge.xmin::text end,
        case when own.is_known then part.attached_at else edge.cmin::text end,
        own.is_known and part.is_known
    from part
        join pg_inherits as edge on edge.inhparent = part.relid
        cross join lateral (select {known} as is_known) as own
)
select part.relid, part.attached_by, part.attached_at, class.relname::text as part_name,
    namespace.nspname::text as schema_name,
    coalesce(pg_relation_size(part.relid) > 0, false) as has_rows,
    has_schema_privilege(class.relnamespace, 'usage') and has_table_privilege(part.relid, 'select') as may_read
from part
    join pg_class as class on class.oid = part.relid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where not part.is_known
    and class.relkind in ('r', 'f')
    and class.relpersistence <> 't'
