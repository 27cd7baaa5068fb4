-- Purpose: which of some aggregates have parked events behind a piece, and from which on these hold them,
--          as parked_holds says it. $1 the requests that ask for them, $2 the last turn of the piece.
-- Locks:   access share on postrider.parked and postrider.parked_request.
-- Plan:    per aggregate twice a range of the index, without payloads; the second time up to the first
--          row with a log position.
-- Hazard:  arrivals rise with the turn; but for an event that was discarded and is read again, which
--          nobody waits for.
select rest.aggregate, left(wanted.aggregateid, 2048) as head, rest.seq, rest.written, first.commit_lsn,
    first.commit_index
from (
    select distinct bucket, aggregatetype, aggregateid,
        postrider.aggregate_digest(aggregatetype, aggregateid) as aggregate
    from postrider.parked_request
    where request = any($1::bigint[])
) as wanted
    cross join lateral (
        select (array_agg(parked.aggregate))[1] as aggregate, min(parked.held_from) as seq,
            min(parked.held_from) filter (where parked.commit_lsn is null or parked.holds_all) as written
        from postrider.parked
        where parked.aggregate = wanted.aggregate
            and parked.bucket = wanted.bucket
            and parked.aggregateid = wanted.aggregateid
            and parked.aggregatetype = wanted.aggregatetype
            and parked.turn > $2
        having count(*) > 0
    ) as rest
    left join lateral (
        select parked.commit_lsn, parked.commit_index
        from postrider.parked
        where parked.aggregate = wanted.aggregate
            and parked.bucket = wanted.bucket
            and parked.aggregateid = wanted.aggregateid
            and parked.aggregatetype = wanted.aggregatetype
            and parked.turn > $2
            and parked.commit_lsn is not null
        order by parked.turn
        limit 1
    ) as first on true
