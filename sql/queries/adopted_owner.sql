-- Purpose: the owner of an adopted table, or of a part of it, who is no superuser where this session is one: what
--          that role has written into the table would run as a superuser. $1 its schema, $2 the table.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  a role that was set is no boundary: a function may reset it. Whoever has made an index's function, a type
--          or a cast without owning the table is not seen.
with recursive part as (
    select class.oid as relid
    from pg_class as class
        join pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname = $1::text and class.relname = $2::text
    union
    select edge.inhrelid
    from part join pg_inherits as edge on edge.inhparent = part.relid
)
select pg_get_userbyid(class.relowner)::text as owner
from part
    join pg_class as class on class.oid = part.relid
    join pg_roles as owner on owner.oid = class.relowner
where not owner.rolsuper
    and exists (select from pg_roles where rolname in (current_user, session_user) and rolsuper)
order by class.oid
limit 1
