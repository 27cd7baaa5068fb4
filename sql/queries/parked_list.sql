-- Purpose: parked events, for people. $1 aggregatetype, $2 aggregateid, $3 id, $4 reason, each null for
--          any; $5 how many at most, null for all.
-- Locks:   access share on postrider.parked and postrider.parked_request.
-- Plan:    reads all parked rows, without their payloads.
-- Hazard:  total counts what was chosen, however few are listed. Names of more than 1,000 bytes are cut.
select seq, id, postrider.shortened(aggregatetype, 1000) as aggregatetype,
    postrider.shortened(aggregateid, 1000) as aggregateid, postrider.shortened(type, 1000) as type,
    reason, detail, topic, attempts,
    coalesce(octet_length(payload), 0)::bigint as payload_bytes,
    date_part('epoch', clock_timestamp() - parked_at) as parked_age_seconds,
    exists (
        select from postrider.parked_request as asked
        where asked.bucket = parked.bucket and asked.aggregatetype = parked.aggregatetype
            and asked.aggregateid = parked.aggregateid) as is_requested,
    count(*) over () as total
from postrider.parked
where ($1::text is null or aggregatetype = $1)
    and ($2::text is null or aggregateid = $2)
    and ($3::uuid is null or id = $3)
    and ($4::text is null or reason = $4)
order by turn
limit $5
