-- Purpose: which of some aggregates are held, as parked_holds says it. $1 digests of their names.
-- Locks:   access share on postrider.parked.
-- Plan:    per aggregate a range of the index on the digest.
-- Hazard:  what is set aside and not parked yet is not found; nor is it known that a parked event is just
--          being published.
select distinct on (aggregate) aggregate, left(aggregateid, 2048) as head,
    min(held_from) over one as seq,
    min(held_from) filter (where commit_lsn is null or holds_all) over one as written,
    commit_lsn, commit_index
from postrider.parked
where aggregate = any($1::bytea[])
window one as (partition by aggregate)
order by aggregate, commit_lsn, commit_index
