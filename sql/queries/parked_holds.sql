-- Purpose: which aggregates are held, and from which event on: the lowest seq of all their parked events,
--          the lowest of those without an arrival, and the first arrival. $1 buckets.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows of the buckets, without their payloads; one sort.
-- Hazard:  read it when the buckets are taken: before, somebody else may still park or publish.
select distinct on (aggregatetype, aggregateid) aggregatetype, aggregateid,
    min(seq) over aggregate as seq,
    min(seq) filter (where commit_lsn is null) over aggregate as written,
    commit_lsn, commit_index
from postrider.parked
where bucket = any($1::smallint[])
window aggregate as (partition by aggregatetype, aggregateid)
order by aggregatetype, aggregateid, commit_lsn, commit_index
