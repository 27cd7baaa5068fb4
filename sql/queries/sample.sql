-- Purpose: some of the newest rows that an earlier look did not see. $1 what it saw, $2 above which seq to look, $3 to $5
--          aggregatetype, aggregateid and type or null for any, $6 rows at most.
-- Locks:   access share on the outbox.
-- Plan:    that of sample_unseen.sql, from which it takes.
-- Hazard:  it is a sample: of a burst the newest are taken, and a row that was committed late may be passed over. A row
--          that takes more than {event_bytes_max} bytes is left out.
select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
from (
    select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
    from ({unseen}) as unseen
    where octet_length(aggregatetype) + octet_length(aggregateid) + octet_length(type)
            + coalesce({payload_bytes}, 0) + coalesce({headers_bytes}, 0) <= {event_bytes_max}
    order by seq desc
    limit $6
) as sample
order by seq
