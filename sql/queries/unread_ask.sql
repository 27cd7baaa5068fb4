-- Purpose: notes that rows which nobody had read are parked, and asks that they be published. $1 bucket, $2 partition,
--          $3 seq and $4 id of each row.
-- Locks:   row locks on new rows.
-- Plan:    one key lookup per row.
-- Hazard:  behind unread_park.sql, in its transaction: what is published from postrider.parked is gone from there, and
--          would be found again.
with noted as (
    insert into postrider.whole_range (bucket, leaf, seq, id, from_snapshot, upto_snapshot)
    select $1::smallint, $2::oid, given.seq, given.id, '3:3:', pg_current_snapshot()
    from unnest($3::bigint[], $4::uuid[]) as given (seq, id)
)
insert into postrider.parked_request (bucket, aggregatetype, aggregateid)
select distinct parked.bucket, parked.aggregatetype, parked.aggregateid
from unnest($3::bigint[], $4::uuid[]) as given (seq, id)
    join postrider.parked on parked.seq = given.seq and parked.id = given.id
