-- Purpose: which of some aggregates have parked events behind a piece, and the first of these. One
--          element per aggregate: $1 bucket, $2 aggregatetype, $3 aggregateid. $4 the last seq of the
--          piece.
-- Locks:   access share on postrider.parked.
-- Plan:    one index lookup per aggregate.
-- Hazard:  none.
select distinct wanted.aggregatetype, wanted.aggregateid, next.seq
from unnest($1::smallint[], $2::text[], $3::text[]) as wanted (bucket, aggregatetype, aggregateid)
    cross join lateral (
        select parked.seq
        from postrider.parked
        where parked.bucket = wanted.bucket
            and hashtextextended(parked.aggregateid, 0) = hashtextextended(wanted.aggregateid, 0)
            and parked.aggregateid = wanted.aggregateid
            and parked.aggregatetype = wanted.aggregatetype
            and parked.seq > $4
        order by parked.seq
        limit 1
    ) as next
