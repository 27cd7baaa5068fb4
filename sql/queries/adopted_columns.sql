-- Purpose: the columns of a table, as the stream would bring them, and what else speaks against it.
--          $1 the table, quoted.
-- Locks:   none.
-- Plan:    a few catalog rows; none when there is no such table.
-- Hazard:  generated columns are not in the stream (before PostgreSQL 18).
select class.relkind::text as kind,
    class.relpersistence = 'p' as is_logged,
    exists (select from pg_inherits where inhrelid = class.oid) as is_part,
    column_.attname::text as name,
    sender.proname::text as sender
from pg_class as class
    join pg_attribute as column_ on column_.attrelid = class.oid
        and column_.attnum > 0 and not column_.attisdropped and column_.attgenerated = ''
    join pg_type as type on type.oid = column_.atttypid
    join pg_proc as sender on sender.oid = type.typsend
where class.oid = to_regclass($1::text)
order by column_.attnum
