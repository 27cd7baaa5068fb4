-- Purpose: the first parked events of some aggregates, in the order in which they were parked. One
--          element per aggregate: $1 bucket, $2 aggregatetype, $3 aggregateid. $4 rows at most, $5 bytes
--          after which no further row is read.
-- Locks:   access share on postrider.parked.
-- Plan:    per aggregate the index on bucket, hash and turn; then one sort of as many rows as that finds.
-- Hazard:  cut by turn over all aggregates: whatever is missing of an aggregate lies behind all that is
--          there.
select turn, seq, id, aggregatetype, aggregateid, type, payload, headers, created_at, commit_lsn,
    commit_index
from (
    select first.*,
        sum(coalesce(octet_length(first.payload), 0))
            over (order by first.turn rows between unbounded preceding and 1 preceding) as bytes_before
    from unnest($1::smallint[], $2::text[], $3::text[]) as wanted (bucket, aggregatetype, aggregateid)
        cross join lateral (
            select parked.*
            from postrider.parked
            where parked.bucket = wanted.bucket
                and hashtextextended(parked.aggregateid, 0) = hashtextextended(wanted.aggregateid, 0)
                and parked.aggregateid = wanted.aggregateid
                and parked.aggregatetype = wanted.aggregatetype
            order by parked.turn
            limit $4
        ) as first
    order by first.turn
    limit $4
) as piece
where coalesce(bytes_before, 0) < $5::bigint
order by turn
