-- Purpose: asks for another try of the aggregates of chosen parked events.
--          $1 aggregatetype, $2 aggregateid, $3 id, $4 reason, each null for any.
-- Locks:   row locks on new rows.
-- Plan:    reads all parked rows, without their payloads.
-- Hazard:  whole aggregates: what follows cannot go before what it follows.
with chosen as materialized (
    select bucket, aggregatetype, aggregateid, count(*) as events, min(turn) as first
    from postrider.parked
    group by bucket, aggregatetype, aggregateid
    having bool_or(($1::text is null or aggregatetype = $1)
        and ($2::text is null or aggregateid = $2)
        and ($3::uuid is null or id = $3)
        and ($4::text is null or reason = $4))
), asked as (
    insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
    select bucket, aggregatetype, aggregateid from chosen
)
select postrider.shortened(aggregatetype, 1000) as aggregatetype,
    postrider.shortened(aggregateid, 1000) as aggregateid, events
from chosen
order by first
