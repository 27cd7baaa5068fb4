-- Purpose: which aggregates are held, and from which event on. $1 buckets.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows of the buckets, without their payloads.
-- Hazard:  read it when the buckets are taken: before, somebody else may still park or publish.
select aggregatetype, aggregateid, min(seq) as seq
from postrider.parked
where bucket = any($1::smallint[])
group by aggregatetype, aggregateid
