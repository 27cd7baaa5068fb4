-- Purpose: the next requests, in the order of asking. $1 buckets, $2 how many, $3 bytes of an aggregate's
--          name that is read, $4 bytes of names after which no further request is read.
-- Locks:   access share on postrider.parked_request.
-- Plan:    by the primary key.
-- Hazard:  an aggregate whose name is longer comes as null: none of its events can be read.
select request, aggregatetype, aggregateid
from (
    select request,
        case when is_read then aggregatetype end as aggregatetype,
        case when is_read then aggregateid end as aggregateid,
        sum(case when is_read then name_bytes else 0 end)
            over (order by request rows between unbounded preceding and 1 preceding) as bytes_before
    from (
        select request, aggregatetype, aggregateid,
            octet_length(aggregatetype)::bigint + octet_length(aggregateid) as name_bytes,
            octet_length(aggregatetype) <= $3::bigint and octet_length(aggregateid) <= $3::bigint as is_read
        from postrider.parked_request
        where bucket = any($1::smallint[])
        order by request
        limit $2
    ) as next
) as asked
where coalesce(bytes_before, 0) < $4::bigint
order by request
