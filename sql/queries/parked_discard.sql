-- Purpose: deletes chosen parked events, and asks for another try of their aggregates.
--          $1 aggregatetype, $2 aggregateid, $3 id, $4 reason, each null for any.
-- Locks:   row locks on the deleted rows and on new ones, for one transaction.
-- Plan:    reads all parked rows.
-- Hazard:  an event that is just being tried again may be published all the same. Every aggregate is asked
--          for. One without any parked event: its hold is lifted by the bucket's owner. One that seems
--          to wait for another event: that one may be on its way just now, seen here for the last time,
--          and what follows it would wait for ever.
with gone as (
    delete from postrider.parked
    where ($1::text is null or aggregatetype = $1)
        and ($2::text is null or aggregateid = $2)
        and ($3::uuid is null or id = $3)
        and ($4::text is null or reason = $4)
    returning seq, turn, bucket, id, aggregatetype, aggregateid, type, reason
), asked as (
    insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
    select distinct bucket, aggregatetype, aggregateid from gone
)
select seq, id, postrider.shortened(aggregatetype, 1000) as aggregatetype,
    postrider.shortened(aggregateid, 1000) as aggregateid, reason
from gone
order by turn
