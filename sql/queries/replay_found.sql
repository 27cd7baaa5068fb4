-- Purpose: how many retained events a replay would send, bucket by bucket, and how many of its events are parked.
--          Parameters as in replay_filter.sql.
-- Locks:   access share on the outbox, to the end of the transaction: nothing is truncated until it is asked for.
-- Plan:    reads the range of seq in each partition.
-- Hazard:  what is parked was not published: the replay leaves it out.
select bucket,
    count(*) filter (where not is_parked) as found,
    count(*) filter (where is_parked) as parked,
    min(seq) filter (where not is_parked) as first_seq,
    max(seq) filter (where not is_parked) as last_seq
from (
    select event.bucket, event.seq, exists (
        select from postrider.parked as parked where parked.seq = event.seq and parked.id = event.id) as is_parked
    from ({bucket_arms}) as event
    where {filter}
) as chosen
group by bucket
order by bucket
