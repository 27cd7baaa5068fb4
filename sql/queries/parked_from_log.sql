-- Purpose: parks a row of the outbox that is too large to be read, inside the server. $1 to $11 as
--          parked_inside.sql; $12 bucket, $13 aggregatetype, $14 aggregateid, $15 type, $16 headers, each null where
--          the row's own counts, $17 the encoding of a payload that is no bytea, null where it does not convert.
-- Locks:   as parked_inside.sql, and access share on the bucket's leaves.
-- Plan:    one index scan on seq per leaf of the bucket; the large values are read by the server alone.
-- Hazard:  as parked_inside.sql. A row that is gone from the table is not parked by this. The payload's
--          bytes are those that would be the record's value.
with given as materialized (
    select $12::smallint as bucket, coalesce($13::text, aggregatetype) as aggregatetype,
        coalesce($14::text, aggregateid) as aggregateid, coalesce($15::text, type) as type,
        {payload} as payload, coalesce($16::text, headers::text) as headers, created_at
    from {bucket_table}
    where seq = $5::bigint and id = $6::uuid
    limit 1
), {inside}