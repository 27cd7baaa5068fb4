-- Purpose: asks for another try of all aggregates that wait for these topics. $1 buckets, $2 topics.
-- Locks:   row locks on new rows.
-- Plan:    by the index on the rows that wait for a topic.
-- Hazard:  none; an aggregate that is asked for twice is looked at twice.
insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
select distinct bucket, aggregatetype, aggregateid
from postrider.parked
where bucket = any($1::smallint[]) and reason = 'topic-unavailable' and topic = any($2::text[])
