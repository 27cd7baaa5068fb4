-- Purpose: which rights of the relay's role are missing. $1 tables or sequences, $2 a right for each.
-- Locks:   none.
-- Plan:    one lookup per pair.
-- Hazard:  a right on a column alone does not count, but where it is asked for: UPDATE (passed).
select to_regclass(object)::text as object, lower(privilege) as privilege,
    (select relkind = 'S' from pg_class where oid = to_regclass(object)) as is_sequence
from unnest($1::text[], $2::text[]) as needed (object, privilege)
where case when privilege like 'UPDATE (%'
    then not has_column_privilege(
        to_regclass(object), substring(privilege from '\((.*)\)'), 'update')
    else not has_table_privilege(to_regclass(object), privilege)
end
