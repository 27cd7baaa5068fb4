-- Purpose: deletes chosen parked events; asks for another try of aggregates whose remaining events wait
--          for nothing else. $1 aggregatetype, $2 aggregateid, $3 id, $4 reason, each null for any.
-- Locks:   row locks on the deleted rows, for one transaction.
-- Plan:    reads all parked rows; then one index lookup per aggregate.
-- Hazard:  an event that is just being tried again may be published all the same. An aggregate without
--          any parked event is asked for, too: its hold is lifted by the bucket's owner.
with gone as (
    delete from postrider.parked
    where ($1::text is null or aggregatetype = $1)
        and ($2::text is null or aggregateid = $2)
        and ($3::uuid is null or id = $3)
        and ($4::text is null or reason = $4)
    returning seq, turn, bucket, id, aggregatetype, aggregateid, type, reason
), touched as (
    select distinct bucket, aggregatetype, aggregateid from gone
), asked as (
    insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
    select bucket, aggregatetype, aggregateid
    from touched
    where coalesce((
        select reason
        from postrider.parked
        where parked.bucket = touched.bucket
            and hashtextextended(parked.aggregateid, 0) = hashtextextended(touched.aggregateid, 0)
            and parked.aggregateid = touched.aggregateid
            and parked.aggregatetype = touched.aggregatetype
            and parked.seq not in (select seq from gone)
        order by parked.turn
        limit 1), 'follows') = 'follows'
)
select seq, id, aggregatetype, aggregateid, type, reason
from gone
order by turn
