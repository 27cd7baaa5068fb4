-- Purpose: which relays' roles may not read a table that is to be adopted. $1 the table, quoted.
-- Locks:   none.
-- Plan:    one lookup per role.
-- Hazard:  knows the roles that are connected now, and the group of sql/roles.sql.
select quote_ident(role.rolname) as role
from pg_roles as role
where (role.rolname = 'postrider_relay'
        or exists (
            select from pg_stat_activity as session
            where session.usename = role.rolname
                and session.datname = current_database()
                and session.application_name = 'postrider lease'))
    and not (has_table_privilege(role.oid, to_regclass($1::text), 'select')
        and has_schema_privilege(role.oid,
            (select relnamespace from pg_class where oid = to_regclass($1::text)), 'usage'))
order by 1
