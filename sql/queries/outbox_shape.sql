-- Purpose: whether the table is as migration 2 made it. $1 its qualified name, quoted.
-- Locks:   access share on catalogs.
-- Plan:    one row; reads the catalog only.
-- Hazard:  a sequence that hands out blocks (cache > 1) lets sessions write out of order; a column
--          before txid, or seq before it, breaks the cursor's lower bound.
select
    (select array_agg(attname || ' ' || format_type(atttypid, atttypmod) order by attnum)
        from pg_attribute
        where attrelid = outbox.oid and attnum > 0 and not attisdropped) as columns,
    (select count(*) from pg_partition_tree(outbox.oid) where level = 1) as buckets,
    (select count(*) from pg_partition_tree(outbox.oid) where isleaf) as leaves,
    serial.name as sequence,
    (select seqcache from pg_sequence where seqrelid = serial.name::regclass) as sequence_cache,
    (select seqincrement from pg_sequence where seqrelid = serial.name::regclass) as sequence_increment
from pg_class as outbox, pg_get_serial_sequence($1, 'seq') as serial (name)
where outbox.oid = to_regclass($1)
