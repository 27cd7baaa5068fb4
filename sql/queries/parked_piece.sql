-- Purpose: the first parked events of the aggregates that some requests ask for, in the order in which they
--          were parked. $1 requests, $2 rows at most, $3 bytes after which no further row is read, $4 bytes
--          of an event that is read whole. One that is larger or that has a fault comes without its values.
-- Locks:   access share on postrider.parked and postrider.parked_request.
-- Plan:    per aggregate a range of the index on digest and turn; then one sort of as many rows as that finds.
--          Lengths are told without reading values.
-- Hazard:  cut by turn over all aggregates: whatever is missing of an aggregate lies behind all that is
--          there.
select turn, seq, id, aggregatetype, aggregateid,
    case when is_whole then type else '' end as type,
    case when is_whole then payload end as payload,
    case when is_whole then headers end as headers,
    created_at, commit_lsn, commit_index, event_bytes, fault
from (
    select sized.*,
        sum(case when is_whole then event_bytes else name_bytes end)
            over (order by turn rows between unbounded preceding and 1 preceding) as bytes_before
    from (
        select first.*, fault is null and event_bytes <= $4::bigint as is_whole
        from (
            select distinct bucket, aggregatetype, aggregateid,
                postrider.aggregate_digest(aggregatetype, aggregateid) as aggregate
            from postrider.parked_request
            where request = any($1::bigint[])
        ) as wanted
            cross join lateral (
                select parked.*,
                    octet_length(parked.aggregatetype)::bigint + octet_length(parked.aggregateid)
                        as name_bytes,
                    octet_length(parked.aggregatetype)::bigint + octet_length(parked.aggregateid)
                        + octet_length(parked.type) + coalesce(octet_length(parked.payload), 0)
                        + coalesce(octet_length(parked.headers), 0) as event_bytes
                from postrider.parked
                where parked.aggregate = wanted.aggregate
                    and parked.bucket = wanted.bucket
                    and parked.aggregateid = wanted.aggregateid
                    and parked.aggregatetype = wanted.aggregatetype
                order by parked.turn
                limit $2
            ) as first
        order by first.turn
        limit $2
    ) as sized
) as piece
where coalesce(bytes_before, 0) < $3::bigint
order by turn
