-- Everything in the two schemas, and all rows, as one text; times left out.
    with ours as (
        select c.oid::regclass::text as name, c.* from pg_class c
        where relnamespace in ('app'::regnamespace, 'postrider'::regnamespace)
    )
    select string_agg(line, chr(10) order by line) from (
        select format('%s %s %s %s %s', name, relkind, reloptions,
            pg_get_expr(relpartbound, ours.oid), relacl) from ours
        union all
        select format('%s.%s %s %s %s %s %s %s', name, attnum, attname, atttypid::regtype,
            attnotnull, attidentity, attstorage, pg_get_expr(adbin, adrelid))
        from ours join pg_attribute on attrelid = ours.oid
            left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where attnum > 0
        union all
        select format('%s %s', conrelid::regclass, pg_get_constraintdef(pg_constraint.oid))
        from pg_constraint join ours on conrelid = ours.oid
        union all
        select pg_get_indexdef(ours.oid) from ours where relkind in ('i', 'I')
        union all
        select format('%s %s', name, pg_get_viewdef(ours.oid)) from ours where relkind = 'v'
        union all
        select format('%s %s', pg_get_functiondef(oid), proacl) from pg_proc
        where pronamespace = 'postrider'::regnamespace
        union all
        select format('%s %s', description, nspacl) from pg_description
            join pg_namespace on nspname = 'postrider'
        where objoid in (select oid from ours) or objoid = 'postrider'::regnamespace
            or objoid in (select oid from pg_proc where pronamespace = 'postrider'::regnamespace)
        union all
        select format('%s %s %s %s', version, name, checksum, applied_by) from postrider.migration
        union all
        select o::text from postrider.outbox o
        union all
        select format('%s %s %s', bucket, epoch, from_snapshot) from postrider.cursor
    ) as lines (line)
