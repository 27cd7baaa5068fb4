-- Purpose: one parked event, whole. $1 id.
-- Locks:   access share on postrider.parked.
-- Plan:    by the index on id.
-- Hazard:  an id is only as unique as its writers make it.
select seq, bucket, id, aggregatetype, aggregateid, type, payload, headers, created_at::text,
    reason, detail, topic, attempts, parked_at::text, last_attempt_at::text
from postrider.parked
where id = $1
order by turn
