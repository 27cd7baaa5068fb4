-- Purpose: whose outbox a table is: the schema of the control tables that were made with it. $1 its qualified name,
--          quoted. No row for a table that is no outbox.
-- Locks:   access share on catalogs.
-- Plan:    a few catalog rows.
-- Hazard:  known by the type of its first column, which no other table has. Before migration 9 that type is not there.
select namespace.nspname::text as schema_name
from pg_attribute as first
    join pg_type as type on type.oid = first.atttypid
    join pg_namespace as namespace on namespace.oid = type.typnamespace
where first.attrelid = to_regclass($1)
    and first.attname = 'txid'
    and not first.attisdropped
    and type.typname = 'own_transaction'
    and type.typtype = 'd'
