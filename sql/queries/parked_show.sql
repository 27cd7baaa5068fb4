-- Purpose: one parked event, whole; but for values of more than $2 bytes, of which the length is told and the
--          beginning. $1 id.
-- Locks:   access share on postrider.parked.
-- Plan:    by the index on id.
-- Hazard:  an id is only as unique as its writers make it.
select seq, bucket, id, postrider.shortened(aggregatetype, $2) as aggregatetype,
    postrider.shortened(aggregateid, $2) as aggregateid, postrider.shortened(type, $2) as type,
    case when octet_length(payload) <= $2 then payload end as payload,
    postrider.shortened(headers, $2) as headers, octet_length(payload)::bigint as payload_bytes,
    created_at::text, fault, reason, detail, topic, attempts, parked_at::text, last_attempt_at::text
from postrider.parked
where id = $1
order by turn
