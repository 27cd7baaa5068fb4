-- Purpose: the tables that inherit from a table and are no partitions: their rows come under their own names. $1
--          the table, quoted.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  the stream brings a child's rows only if the publication has it.
with recursive child as (
    select to_regclass($1::text)::oid as relid
    union
    select edge.inhrelid
    from child
        join pg_inherits as edge on edge.inhparent = child.relid
)
select class.oid
from child
    join pg_class as class on class.oid = child.relid
where class.oid <> to_regclass($1::text)
    and not class.relispartition
