-- Purpose: the columns of a table, as the stream would bring them, and what else speaks against it.
--          $1 the table, quoted.
-- Locks:   none.
-- Plan:    a few catalog rows; none when there is no such table.
-- Hazard:  generated columns are not in the stream (before PostgreSQL 18). A domain is sent as its base type is.
select class.relkind::text as kind,
    class.relpersistence = 'p' as is_logged,
    exists (select from pg_inherits where inhrelid = class.oid) as is_part,
    (with recursive part as (
            select edge.inhrelid as relid from pg_inherits as edge where edge.inhparent = class.oid
            union
            select edge.inhrelid from part join pg_inherits as edge on edge.inhparent = part.relid
        )
        select min(other.oid::regclass::text)
        from part
            join pg_class as other on other.oid = part.relid
        where other.relpersistence = 'u' or other.relkind = 'f') as unlogged_part,
    column_.attname::text as name,
    format_type(column_.atttypid, column_.atttypmod) as type_name,
    column_.attgenerated <> '' as is_generated,
    sender.proname::text as sender
from pg_class as class
    join pg_attribute as column_ on column_.attrelid = class.oid
        and column_.attnum > 0 and not column_.attisdropped
    join pg_type as type on type.oid = column_.atttypid
    left join pg_proc as sender on sender.oid = type.typsend
where class.oid = to_regclass($1::text)
order by column_.attnum
