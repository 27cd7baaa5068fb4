-- Purpose: functions that the relay's role may not call. $1 their names.
-- Locks:   none.
-- Plan:    a key lookup per name.
-- Hazard:  all functions of a name count, whatever they take: a relay needs one of them, and who hardens takes all.
select namespace.nspname || '.' || function.proname || '(' || pg_get_function_identity_arguments(function.oid) || ')'
    as name
from pg_proc as function
    join pg_namespace as namespace on namespace.oid = function.pronamespace
where function.proname = any ($1::text[])
    and namespace.nspname in ('pg_catalog', 'postrider')
    and not has_function_privilege(function.oid, 'execute')
order by 1
