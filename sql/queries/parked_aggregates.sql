-- Purpose: the aggregates of chosen parked events, and how many events each has parked.
--          $1 aggregatetype, $2 aggregateid, $3 id, $4 reason, each null for any.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows, without their payloads.
-- Hazard:  none.
select postrider.shortened(aggregatetype, 1000) as aggregatetype,
    postrider.shortened(aggregateid, 1000) as aggregateid, count(*) as events
from postrider.parked
group by bucket, aggregatetype, aggregateid
having bool_or(($1::text is null or aggregatetype = $1)
    and ($2::text is null or aggregateid = $2)
    and ($3::uuid is null or id = $3)
    and ($4::text is null or reason = $4))
order by min(turn)
