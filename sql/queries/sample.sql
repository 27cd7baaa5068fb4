-- Purpose: some of the newest rows that an earlier look did not see. $1 what it saw, $2 above which seq to look, $3 to $5
--          aggregatetype, aggregateid and type or null for any, $6 rows at most.
-- Locks:   access share on the outbox.
-- Plan:    10,000 rows at most, from the upper end of the index on seq of each partition, merged; without a sort.
-- Hazard:  it is a sample: of a burst the newest are taken, and a row that was committed late may be passed over. A row
--          that takes more than {event_bytes_max} bytes is left out.
select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
from (
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
        and octet_length(aggregatetype) + octet_length(aggregateid) + octet_length(type)
            + coalesce({payload_bytes}, 0) + coalesce({headers_bytes}, 0) <= {event_bytes_max}
    order by seq desc
    limit $6
) as sample
order by seq
