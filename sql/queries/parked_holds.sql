-- Purpose: which aggregates are held, and from which event on: the lowest seq of all their parked events,
--          the lowest of those without a log position, and the first log position; with the digest of the name and how
--          the id begins. $1 buckets, $2 how many at most.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows of the buckets, without their payloads and long names; one sort.
-- Hazard:  read it when the buckets are taken: before, somebody else may still park or publish.
select distinct on (aggregate) aggregate, left(aggregateid, 2048) as head,
    min(held_from) over one as seq,
    min(held_from) filter (where commit_lsn is null or holds_all) over one as written,
    commit_lsn, commit_index
from postrider.parked
where bucket = any($1::smallint[])
window one as (partition by aggregate)
order by aggregate, commit_lsn, commit_index
limit $2::bigint
