-- Purpose: the tables, views and functions of the schemas that postrider makes, as docs/reference/tables.md lists them.
with relation as (
    select class.oid, namespace.nspname || '.' || class.relname as name,
        case class.relkind when 'v' then 'view' else 'table' end as kind,
        coalesce(obj_description(class.oid, 'pg_class'), '') as words
    from pg_class as class
        join pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname in ('postrider', 'postrider_inbox') and class.relkind in ('r', 'v', 'p')
        and not class.relispartition
), part as (
    select relation.name, relation.kind, relation.words as about, attribute.attnum as place,
        attribute.attname::text as item,
        format_type(attribute.atttypid, attribute.atttypmod) as form,
        case when relation.kind = 'view' then ''
            when attribute.attnotnull then 'no' else 'yes' end as may_be_null,
        coalesce(case
            when attribute.attidentity <> '' then 'identity'
            when attribute.attgenerated <> '' then 'computed'
            else pg_get_expr(held.adbin, held.adrelid) end, '') as held,
        coalesce(col_description(relation.oid, attribute.attnum), '') as words
    from relation
        join pg_attribute as attribute
            on attribute.attrelid = relation.oid and attribute.attnum > 0 and not attribute.attisdropped
        left join pg_attrdef as held on held.adrelid = relation.oid and held.adnum = attribute.attnum
    union all
    select namespace.nspname || ' functions', 'functions', '', 1,
        function.proname || '(' || pg_get_function_identity_arguments(function.oid) || ')',
        pg_get_function_result(function.oid), '', '', coalesce(obj_description(function.oid, 'pg_proc'), '')
    from pg_proc as function
        join pg_namespace as namespace on namespace.oid = function.pronamespace
    where namespace.nspname in ('postrider', 'postrider_inbox')
)
select name, kind, about, item, form, may_be_null, held, words
from part
order by split_part(name, '.', 1) = 'postrider_inbox' or name like 'postrider\_inbox%',
    kind = 'functions', kind, name, place, item;
