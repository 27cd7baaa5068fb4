-- Purpose: whether the session's role may make temporary tables, in which gathers what is too large to be read.
-- Locks:   none. Plan: one row.
-- Hazard:  all roles may by default; hardened databases take it away from them.
select has_database_privilege(current_database(), 'temporary') as may_gather,
    quote_ident(current_database()) as database, quote_ident(current_user) as role
