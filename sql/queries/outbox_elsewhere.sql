-- Purpose: where the outbox is, if somebody has moved or renamed it.
-- Locks:   access share on catalogs.
-- Plan:    reads the catalog only.
-- Hazard:  known by the type of its first column, which no other table has. Before migration 9 that type is not there.
select namespace.nspname::text as schema_name, class.relname::text as table_name
from pg_attribute as first
    join pg_class as class on class.oid = first.attrelid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where first.attname = 'txid'
    and first.atttypid = to_regtype('postrider.own_transaction')
    and class.relkind = 'p'
    and not class.relispartition
limit 1
