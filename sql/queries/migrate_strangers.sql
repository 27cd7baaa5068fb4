-- Purpose: the owner of the schema postrider, or of a thing in it, who is neither this role, nor one that it is a
--          member of, nor a superuser: what it owns could be changed under whoever uses it.
-- Locks:   none.
-- Plan:    reads the catalogs' rows of the schema.
-- Hazard:  a superuser is a member of every role for pg_has_role; here only of those that it was granted.
with recursive own (role) as (
    select oid from pg_catalog.pg_roles where rolname = current_user
    union
    select granted.roleid
    from own join pg_catalog.pg_auth_members as granted on granted.member = own.role
), trusted (role) as (
    select role from own
    union
    select oid from pg_catalog.pg_roles where rolsuper
), owned (thing, owner) as (
    select 'the schema postrider', nspowner
    from pg_catalog.pg_namespace where nspname = 'postrider'
    union all
    select 'postrider.' || pg_catalog.quote_ident(relname), relowner
    from pg_catalog.pg_class where relnamespace = pg_catalog.to_regnamespace('postrider')
    union all
    select 'the function postrider.' || pg_catalog.quote_ident(proname), proowner
    from pg_catalog.pg_proc where pronamespace = pg_catalog.to_regnamespace('postrider')
    union all
    select 'the type postrider.' || pg_catalog.quote_ident(typname), typowner
    from pg_catalog.pg_type where typnamespace = pg_catalog.to_regnamespace('postrider')
)
select owned.thing, pg_catalog.pg_get_userbyid(owned.owner)::text as owner
from owned
where owned.owner not in (select role from trusted)
order by owned.thing <> 'the schema postrider', owned.thing
limit 1
