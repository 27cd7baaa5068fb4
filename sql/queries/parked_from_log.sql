-- Purpose: parks a row of the outbox that is too large to be read, inside the server. $1 to $11 as
--          parked_inside.sql; $12 bucket, $13 aggregatetype, $14 aggregateid, $15 type, $16 headers, each null where
--          the row's own counts, $17 the encoding of a payload that is no bytea, null where a value does not convert.
-- Locks:   as parked_inside.sql, and access share on the bucket's partitions.
-- Plan:    one index scan on seq per partition of the bucket; the large values are read by the server alone.
-- Hazard:  as parked_inside.sql. A row that is gone from the table is not parked by this. The payload's
--          bytes are those that would be the record's value.
with given as materialized (
    -- There and back: an encoding that checks nothing may hold what is no text, and nobody could read it again.
    select $12::smallint as bucket,
        coalesce($13::text, convert_from(convert_to(aggregatetype, 'UTF8'), 'UTF8')) as aggregatetype,
        coalesce($14::text, convert_from(convert_to(aggregateid, 'UTF8'), 'UTF8')) as aggregateid,
        coalesce($15::text, convert_from(convert_to(type, 'UTF8'), 'UTF8')) as type,
        {payload} as payload,
        coalesce($16::text, case
            when $17::text is not null then convert_from(convert_to(headers::text, 'UTF8'), 'UTF8')
        end) as headers,
        created_at
    from {bucket_table}
    where seq = $5::bigint and id = $6::uuid
    limit 1
), {inside}