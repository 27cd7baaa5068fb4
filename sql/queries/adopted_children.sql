-- Purpose: a table and the tables that inherit from it and are no partitions: their rows come under their own names.
--          $1 the table, quoted.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  the stream brings a child's rows only if the publication has it, and each under the name that the table had
--          when they were written.
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
where class.oid = to_regclass($1::text)
    or not class.relispartition
