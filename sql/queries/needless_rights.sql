-- Purpose: roles that hold rights on postrider's own objects which sql/roles.sql gives neither a writer nor a relay.
-- Locks:   none.
-- Plan:    the rights on a few dozen objects.
-- Hazard:  to read is left to whoever was let: people look at cursors, and parked events are told in SECURITY.md. Who
--          may take leases is a relay, whatever its name. Rights on columns are those that migrations give.
with held as (
    select class.relname::text as object,
        quote_ident(namespace.nspname) || '.' || quote_ident(class.relname) as place,
        granted.grantee, granted.privilege_type as privilege
    from pg_class as class
        join pg_namespace as namespace on namespace.oid = class.relnamespace
        cross join lateral aclexplode(class.relacl) as granted
    where namespace.nspname = 'postrider'
        and class.relkind in ('r', 'v', 'p', 'm')
        and granted.grantee <> class.relowner
        and granted.privilege_type <> 'SELECT'
    union all
    select '', 'schema postrider', granted.grantee, granted.privilege_type
    from pg_namespace as namespace
        cross join lateral aclexplode(namespace.nspacl) as granted
    where namespace.nspname = 'postrider'
        and granted.grantee <> namespace.nspowner
        and granted.privilege_type = 'CREATE'
), of_relays (object, privilege) as (
    values ('cursor', 'UPDATE'),
        ('instance', 'INSERT'), ('instance', 'UPDATE'), ('instance', 'DELETE'),
        ('parked', 'INSERT'), ('parked', 'UPDATE'), ('parked', 'DELETE'),
        ('parked_request', 'INSERT'), ('parked_request', 'DELETE'),
        ('large_part', 'INSERT'), ('large_part', 'DELETE'),
        ('capture', 'UPDATE'), ('capture_slot', 'UPDATE'),
        ('past_tick', 'INSERT'), ('past_tick', 'DELETE'), ('whole_range', 'INSERT'), ('whole_range', 'DELETE'),
        ('log_reader', 'UPDATE'),
        ('replay', 'INSERT'), ('replay', 'UPDATE'), ('replay_bucket', 'INSERT'), ('replay_bucket', 'UPDATE'),
        ('emitting', 'UPDATE'), ('emitting', 'DELETE'), ('emitting', 'TRUNCATE')
), relay (grantee) as (
    select grantee from held
    where object = 'instance' and privilege = 'INSERT' and grantee <> 0
), needless as (
    select grantee, place, privilege
    from held
    where not (grantee in (select grantee from relay)
        and (object, privilege) in (select object, privilege from of_relays))
), by_place as (
    select case when grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(grantee)) end as role,
        place,
        string_agg(distinct lower(privilege), ', ' order by lower(privilege)) as privileges
    from needless
    group by 1, 2
)
select role,
    string_agg(privileges || ' on ' || place, '; ' order by place) as rights,
    string_agg('revoke ' || privileges || ' on ' || place || ' from ' || role, '; ' order by place) as taken_back
from by_place
group by role
order by role
