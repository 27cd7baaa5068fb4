-- Purpose: which aggregates are held, and from which event on: the lowest seq of all their parked events,
--          the lowest of those without an arrival, and the first arrival. $1 buckets,
--          $2 bytes of an aggregate's name that is read.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows of the buckets, without their payloads; one sort.
-- Hazard:  read it when the buckets are taken: before, somebody else may still park or publish. An
--          aggregate with a longer name is not held: all its events are larger than what is read.
select distinct on (aggregatetype, aggregateid) aggregatetype, aggregateid,
    min(held_from) over aggregate as seq,
    min(held_from) filter (where commit_lsn is null or holds_all) over aggregate as written,
    commit_lsn, commit_index
from postrider.parked
where bucket = any($1::smallint[])
    and octet_length(aggregatetype) <= $2::bigint
    and octet_length(aggregateid) <= $2::bigint
window aggregate as (partition by aggregatetype, aggregateid)
order by aggregatetype, aggregateid, commit_lsn, commit_index
