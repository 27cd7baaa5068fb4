-- Purpose: the rows of an adopted table that the stream does not bring, each as the parts of an event, with its
--          transaction id, what PostgreSQL says of parts that it cannot hand over, and, of one that takes more bytes
--          than are read, how many aggregatetype, aggregateid, type, headers and payload have: a value that is longer
--          than a part is not there. It follows part by part, in rows with its number among the five.
-- Locks:   access share on the table, until the transaction ends.
-- Plan:    reads the table once and sorts what is left, before a large value is read. Its rows are taken from
--          the socket one by one.
-- Hazard:  runs in the transaction whose snapshot is the slot's: what is written later is in the stream. Each
--          "offset 0" keeps the planner from reading a value again for each of its parts, and keeps the order.
select
    case when part.number is null and octet_length(sized.id) <= sized.whole_bytes then sized.id end,
    case when part.number is null and octet_length(sized.aggregatetype) <= sized.whole_bytes
        then sized.aggregatetype end,
    case when part.number is null and octet_length(sized.aggregateid) <= sized.whole_bytes
        then sized.aggregateid end,
    case when part.number is null and octet_length(sized.type) <= sized.whole_bytes then sized.type end,
    case when part.number is null and octet_length(sized.payload) <= sized.whole_bytes then sized.payload end,
    case when part.number is null and octet_length(sized.payload_bytes) <= sized.whole_bytes
        then sized.payload_bytes end,
    case when part.number is null and octet_length(sized.headers) <= sized.whole_bytes then sized.headers end,
    case when part.number is null then sized.created_at end,
    sized.written_by,
    case when part.number is null then nullif(sized.fault, '') end,
    case when part.number is null and sized.is_large then sized.lengths end,
    part.number,
    part.content
from (
    select measured.*, measured.event_bytes > measured.event_bytes_max as is_large,
        case when measured.event_bytes > measured.event_bytes_max then measured.part_bytes else 2147483647 end
            as whole_bytes
    from (
        select valued.*, {event_bytes_max}::bigint as event_bytes_max, {part_bytes}::integer as part_bytes,
            coalesce(octet_length(id), 0)::bigint + coalesce(octet_length(aggregatetype), 0)
                + coalesce(octet_length(aggregateid), 0) + coalesce(octet_length(type), 0)
                + coalesce(octet_length(payload), 0) + coalesce(octet_length(payload_bytes), 0)
                + coalesce(octet_length(headers), 0) as event_bytes,
            concat_ws(',', coalesce(octet_length(aggregatetype), 0), coalesce(octet_length(aggregateid), 0),
                coalesce(octet_length(type), 0), coalesce(octet_length(headers), 0),
                coalesce(octet_length(payload_bytes), octet_length(payload), 0)) as lengths
        from (
            select {parts}, {fault} as fault, ordered.written_by
            from (
                select {columns}, adopted_row.xmin::text as written_by
                from {table} as adopted_row
                where {condition}
                order by {order}
                offset 0
            ) as ordered
                {printed}
            offset 0
        ) as valued
    ) as measured
) as sized
    cross join lateral (
        select null::integer as number, null::bytea as content
        union all
        select large.number, substring(large.content from piece * sized.part_bytes + 1 for sized.part_bytes)
        from (values
            (0, case when octet_length(sized.aggregatetype) > sized.whole_bytes
                then convert_to(sized.aggregatetype, 'UTF8') end),
            (1, case when octet_length(sized.aggregateid) > sized.whole_bytes
                then convert_to(sized.aggregateid, 'UTF8') end),
            (2, case when octet_length(sized.type) > sized.whole_bytes then convert_to(sized.type, 'UTF8') end),
            (3, case when octet_length(sized.headers) > sized.whole_bytes
                then convert_to(sized.headers, 'UTF8') end),
            (4, case when octet_length(sized.payload_bytes) > sized.whole_bytes
                then sized.payload_bytes || ''::bytea
                when octet_length(sized.payload) > sized.whole_bytes then convert_to(sized.payload, 'UTF8') end)
        ) as large (number, content)
            cross join lateral generate_series(0, (octet_length(large.content) - 1) / sized.part_bytes) as piece
    ) as part
