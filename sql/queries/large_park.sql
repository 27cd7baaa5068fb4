-- Purpose: parks a message that was taken up in parts, as an event. $1 to $11 as parked_inside.sql; $12 created_at,
--          $13 where the texts begin, $14 the lengths of aggregatetype, aggregateid, type and headers; null where the
--          message is no event: then $15 is its kind of aggregate, and the payload is all of it; $16 and $17 whether
--          there are headers and a payload.
-- Locks:   as parked_inside.sql.
-- Plan:    as parked_inside.sql.
-- Hazard:  as parked_inside.sql.
with whole as materialized (
    select string_agg(content, ''::bytea order by part) as content
    from postrider.large_part
), parts as materialized (
    select content, $13::integer as texts, coalesce($14::integer[], array[0, 0, 0, 0]) as lengths
    from whole
), given as materialized (
    select null::smallint as bucket, $12::timestamptz as created_at,
        coalesce($15::text, convert_from(substring(content from texts + 1 for lengths[1]), 'UTF8'))
            as aggregatetype,
        convert_from(substring(content from texts + lengths[1] + 1 for lengths[2]), 'UTF8')
            as aggregateid,
        convert_from(
            substring(content from texts + lengths[1] + lengths[2] + 1 for lengths[3]), 'UTF8') as type,
        case when $16::boolean then
            convert_from(
                substring(content from texts + lengths[1] + lengths[2] + lengths[3] + 1 for lengths[4]),
                'UTF8')
        end as headers,
        case when $17::boolean then
            substring(
                content from texts + lengths[1] + lengths[2] + lengths[3] + lengths[4] + 1)
        end as payload
    from parts
), {inside}