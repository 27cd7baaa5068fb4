-- Purpose: which roles that are to read an adopted table may not, and why. $1 its schema, $2 the table;
--          $3 whether this session's role is to read it, $4 the roles of the running instances, $5 the groups
--          that sql/roles.sql has made for relays, whatever their names.
-- Locks:   none.
-- Plan:    one lookup per role.
-- Hazard:  an instance is known by its session's name, which anybody may give to his; therefore it counts only
--          with a role that may hold a lease. By names: regclass needs rights on the schema.
select quote_ident(role.rolname) as role, rights.may_use, rights.may_read,
    rights.sees_all or not role.rolcanlogin as sees_all
from pg_class as class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    cross join pg_roles as role
    cross join lateral (
        select has_table_privilege(role.oid, class.oid, 'select') as may_read,
            has_schema_privilege(role.oid, class.relnamespace, 'usage') as may_use,
            not class.relrowsecurity or role.rolsuper or role.rolbypassrls
                or (pg_has_role(role.oid, class.relowner, 'usage') and not class.relforcerowsecurity) as sees_all
    ) as rights
where namespace.nspname = $1::text and class.relname = $2::text
    and ($3 and role.rolname = current_user
        or $5 and not role.rolcanlogin
            and exists (
                select from pg_class as instance
                    cross join lateral aclexplode(instance.relacl) as granted
                where instance.oid = 'postrider.instance'::regclass
                    and granted.privilege_type = 'INSERT'
                    and granted.grantee = role.oid
                    and granted.grantee <> instance.relowner)
        or $4
            and has_table_privilege(role.oid, 'postrider.instance', 'insert, update')
            and exists (
                select from pg_stat_activity as session
                where session.usename = role.rolname
                    and session.datname = current_database()
                    and session.application_name = 'postrider lease'))
    -- A group without a login reads nothing itself, and hands no attribute on.
    and not (rights.may_read and rights.may_use and (rights.sees_all or not role.rolcanlogin))
order by 1
