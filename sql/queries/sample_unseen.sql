-- Purpose: what a look takes from, for sample.sql and sample_carefully.sql: the newest rows that an earlier look did not
--          see. Parameters as there.
-- Locks:   access share on the outbox.
-- Plan:    10,000 rows at most, from the upper end of the index on seq of each partition, merged; without a sort.
-- Hazard:  as sample.sql. Nothing but places and what is compared is read here.
select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
from (
    select txid, seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
    from {outbox}
    where seq > $2
    order by seq desc
    limit 10000
) as newest
where not pg_visible_in_snapshot(txid, $1)
    and aggregatetype = coalesce($3, aggregatetype)
    and aggregateid = coalesce($4, aggregateid)
    and type = coalesce($5, type)
