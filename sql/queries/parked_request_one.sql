-- Purpose: asks for another try of one aggregate for each of these topics that any waits for, each time another
--          one. $1 buckets, $2 topics. Answers the topics with their requests.
-- Locks:   row locks on new rows.
-- Plan:    by the index on the rows that wait for a topic; then one sort of them.
-- Hazard:  none; if the one cannot be sent for a reason of its own, that says nothing of the topic.
with chosen as materialized (
    select distinct on (topic) topic, bucket, aggregatetype, aggregateid
    from postrider.parked
    where bucket = any($1::smallint[]) and reason = 'topic-unavailable' and topic = any($2::text[])
    order by topic, random()
), asked as (
    insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
    select distinct bucket, aggregatetype, aggregateid from chosen
    returning request, bucket, aggregatetype, aggregateid
)
select topic, request
from chosen
    join asked using (bucket, aggregatetype, aggregateid)
