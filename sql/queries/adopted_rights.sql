-- Purpose: which relays' roles may not read a table that is to be adopted, and why. $1 the table, quoted.
-- Locks:   none.
-- Plan:    one lookup per role.
-- Hazard:  knows the roles that are connected now, and the group of sql/roles.sql.
select quote_ident(role.rolname) as role, rights.may_read, rights.sees_all or not role.rolcanlogin as sees_all
from pg_class as class
    cross join pg_roles as role
    cross join lateral (
        select has_table_privilege(role.oid, class.oid, 'select')
                and has_schema_privilege(role.oid, class.relnamespace, 'usage') as may_read,
            not class.relrowsecurity or role.rolsuper or role.rolbypassrls
                or (pg_has_role(role.oid, class.relowner, 'usage') and not class.relforcerowsecurity) as sees_all
    ) as rights
where class.oid = to_regclass($1::text)
    and (role.rolname = 'postrider_relay'
        or exists (
            select from pg_stat_activity as session
            where session.usename = role.rolname
                and session.datname = current_database()
                and session.application_name = 'postrider lease'))
    -- A group without a login reads nothing itself, and hands no attribute on.
    and not (rights.may_read and (rights.sees_all or not role.rolcanlogin))
order by 1
