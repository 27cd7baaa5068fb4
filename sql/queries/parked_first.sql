-- Purpose: parked events for which others of their aggregate wait, in their order; for people. $1 how many at most, $2 how
--          many events of an aggregate are counted at most.
-- Locks:   access share on postrider.parked and postrider.parked_request.
-- Plan:    reads all parked rows, without their payloads, and keeps the first ones; per row a look by parked_held.
-- Hazard:  names of more than 200 bytes are cut, and words of more than 1,000.
select first.bucket, postrider.shortened(first.aggregatetype, 200) as aggregatetype,
    postrider.shortened(first.aggregateid, 200) as aggregateid, first.id,
    postrider.shortened(first.type, 200) as type, first.reason,
    postrider.shortened(first.detail, 1000) as detail, postrider.shortened(first.topic, 300) as topic,
    first.attempts,
    date_part('epoch', clock_timestamp() - first.parked_at) as since_seconds,
    (select count(*) from (
        select from postrider.parked as other where other.aggregate = first.aggregate limit $2) as others) as events,
    exists (
        select from postrider.parked_request as asked
        where asked.bucket = first.bucket and asked.aggregatetype = first.aggregatetype
            and asked.aggregateid = first.aggregateid) as is_requested
from (
    select bucket, aggregatetype, aggregateid, aggregate, id, type, reason, detail, topic, attempts, parked_at, turn
    from postrider.parked
    where reason <> 'follows'
    order by turn
    limit $1
) as first
order by first.turn
