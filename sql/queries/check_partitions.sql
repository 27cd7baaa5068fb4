-- Purpose: partitions of the outbox that are not where migration 2 put them, or cannot be read in the order of seq.
--          $1 the outbox's name, $2 the names that its partitions have, all quoted.
-- Locks:   access share on catalogs.
-- Plan:    reads the catalog only.
-- Hazard:  an index that was built concurrently and failed is there, and not valid: it is of no use.
select part.name, leaf.relid is not null as is_there
from unnest($2::text[]) as part (name)
    left join pg_partition_tree(to_regclass($1)) as leaf on leaf.isleaf and leaf.relid = to_regclass(part.name)
where not exists (
    select
    from pg_index as index
        join pg_class as class on class.oid = index.indexrelid
        join pg_am as method on method.oid = class.relam
    where index.indrelid = leaf.relid
        and method.amname = 'btree'
        and index.indisvalid and index.indisready
        and index.indpred is null
        and index.indkey[0] = (
            select attnum from pg_attribute where attrelid = leaf.relid and attname = 'seq'))
order by part.name
