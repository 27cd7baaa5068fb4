-- Purpose: the columns that a condition, $2, names and by which a table, $1 quoted, or a part of it is partitioned.
-- Locks:   access share on the partitions, for a moment.
-- Plan:    a few catalog rows per partition.
-- Hazard:  names are found as words of the texts: a constant that reads like a column counts.
select string_agg(distinct quote_ident(column_.attname), ', ') as columns
from pg_partition_tree(to_regclass($1::text)) as tree
    cross join lateral (select pg_get_partkeydef(tree.relid) as columns) as key
    join pg_attribute as column_ on column_.attrelid = tree.relid
        and column_.attnum > 0 and not column_.attisdropped
    cross join lateral (
        select '\y' || regexp_replace(column_.attname, '(\W)', '\\\1', 'g') || '\y' as pattern
    ) as word
where key.columns ~* word.pattern
    and $2::text ~* word.pattern
