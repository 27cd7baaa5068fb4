-- Purpose: the parts of an adopted table, {root} its name as a constant, that became parts in a transaction that is
--          not {known} to be published: partitions and inheriting children, of whatever depth. What was in them
--          before did not come in the stream.
-- Locks:   none.
-- Plan:    a few catalog rows per part.
-- Hazard:  a table that is made as a part is among them, too, until the transaction that made it is published.
--          Temporary tables are nobody else's. Of several levels the one that was joined last made the table a part. Who
--          made it is told by a column that every table has and nothing changes. To make one as a partition takes up to
--          three commands, as a child one: between these nobody writes.
with recursive part as (
    select edge.inhrelid as relid, edge.xmin::text as attached_by, edge.cmin::text as attached_at,
        {known} as is_known
    from pg_inherits as edge
    where edge.inhparent = to_regclass({root})
    union all
    select edge.inhrelid,
        case when own.is_earlier then part.attached_by else edge.xmin::text end,
        case when own.is_earlier then part.attached_at else edge.cmin::text end,
        own.is_known and part.is_known
    from part
        join pg_inherits as edge on edge.inhparent = part.relid
        cross join lateral (
            select known.is_known,
                known.is_known or (not part.is_known
                    and (({near}::bigint - edge.xmin::text::bigint) & 4294967295,
                            -edge.cmin::text::bigint)
                        > (({near}::bigint - part.attached_by::bigint) & 4294967295,
                            -part.attached_at::bigint)) as is_earlier
            from (select {known} as is_known) as known
        ) as own
)
select part.relid, part.attached_by, part.attached_at,
    coalesce(made.xmin::text <> part.attached_by, false) as was_there,
    case when made.xmin::text = part.attached_by
            and part.attached_at::bigint - made.cmin::text::bigint
                > case when class.relispartition then 3 else 1 end
        then made.cmin::text else part.attached_at
    end as made_at,
    class.relname::text as part_name, namespace.nspname::text as schema_name,
    coalesce(pg_relation_size(part.relid) > 0, false) as has_rows,
    has_schema_privilege(class.relnamespace, 'usage') and has_table_privilege(part.relid, 'select') as may_read
from part
    join pg_class as class on class.oid = part.relid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    left join pg_attribute as made on made.attrelid = part.relid and made.attnum = -1
where not part.is_known
    and class.relkind in ('r', 'f')
    and class.relpersistence <> 't'
