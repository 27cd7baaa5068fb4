-- Purpose: what this session's role lacks to make a publication anew. $1 its name, $2 the tables that it is to bring.
-- Locks:   none.
-- Plan:    a row per table.
-- Hazard:  a membership counts only where it is inherited, as PostgreSQL counts it.
select has_database_privilege(current_database(), 'create') as may_create,
    current_database()::text as database, current_user::text as role,
    (select string_agg(pg_class.oid::regclass::text, ', ')
     from unnest($2::text[]) as name
        join pg_class on pg_class.oid = to_regclass(name)
     where not pg_has_role(pg_class.relowner, 'usage')) as foreign_tables,
    exists (
        select from pg_publication
        where pubname = $1::text and not pg_has_role(pubowner, 'usage')) as is_foreign
