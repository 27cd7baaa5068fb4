-- Purpose: tables whose rows a policy would hide from this role. $1 their names.
-- Locks:   none.
-- Plan:    one lookup per name.
-- Hazard:  postrider's sessions set row_security = off, which turns such a table into an error.
select to_regclass(object)::text as object, quote_ident(current_user) as role
from unnest($1::text[]) as object
where row_security_active(to_regclass(object))
