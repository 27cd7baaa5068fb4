-- Purpose: the next events of a replay in one bucket, in the order of seq. $1 to $8 as in replay_filter.sql, $5 being
--          the lowest that was not sent; $9 what was committed when it was asked for; $10 rows at most, and those
--          that share the last one's seq. A row that takes more than {event_bytes_max} bytes ends it with an error.
-- Locks:   access share on the bucket's partitions, while the page is read.
-- Plan:    as claim.sql.
-- Hazard:  what is parked was not published, and is left out. A cut between rows of one seq would leave a gap.
select event.seq, event.id, event.aggregatetype, event.aggregateid, event.type, event.payload, event.headers,
    event.created_at
from ({bucket_arms}) as event
where {filter}
    and (select postrider.has_its_partitions(array[{bucket_tables}]::regclass[]))
    and pg_visible_in_snapshot(event.txid, $9)
    and not exists (
        select from postrider.parked as parked where parked.seq = event.seq and parked.id = event.id)
    and (octet_length(event.aggregatetype) + octet_length(event.aggregateid) + octet_length(event.type)
            + coalesce({payload_bytes}, 0) + coalesce({headers_bytes}, 0) <= {event_bytes_max}
        or postrider.refuse_large_row(event.seq))
order by event.seq
fetch first $10 rows with ties
