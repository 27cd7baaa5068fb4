-- Purpose: one page of a cohort: the rows that $upto sees and $from does not, in the order of seq.
--          $1 position, $2 through, $3 from, $4 upto, $5 rows at most, and those that share the last one's
--          seq. Of a row that takes more than {event_bytes_max} bytes its aggregate and its size come alone.
-- Locks:   access share on the cohort's leaves, for as long as the page is read.
-- Plan:    merge append over one index scan on (seq) per leaf, without a sort; the conditions stand
--          outside the union because the planner merges ordered arms only when they have none. The limit
--          keeps the inner select apart, so that a row's size is told once.
-- Hazard:  a lower bound on seq alone loses rows, a cut by transaction id reorders them. The bound
--          comes from the ticks (src/tick.rs); the two snapshots decide what belongs to the page. A cut
--          between rows of one seq would lose those behind it. Sizes are told without reading values; but
--          of json and jsonb only where the stored size leaves no doubt (src/capture/poll.rs).
select seq, id,
    case when event_bytes <= {event_bytes_max} then aggregatetype
        else postrider.shortened(aggregatetype, {event_bytes_max}) end as aggregatetype,
    case when event_bytes <= {event_bytes_max} then aggregateid
        else postrider.shortened(aggregateid, {event_bytes_max}) end as aggregateid,
    case when event_bytes <= {event_bytes_max} then type else '' end as type,
    case when event_bytes <= {event_bytes_max} then payload end as payload,
    case when event_bytes <= {event_bytes_max} then headers end as headers,
    created_at,
    case when event_bytes > {event_bytes_max} then bucket end as bucket,
    case when event_bytes > {event_bytes_max} then event_bytes end as event_bytes
from (
    select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at, bucket,
        octet_length(aggregatetype)::bigint + octet_length(aggregateid) + octet_length(type)
            + coalesce({payload_bytes}, 0) + coalesce({headers_bytes}, 0) as event_bytes
    from ({bucket_arms}) as cohort
    where seq > $1
        and seq <= $2
        and not pg_visible_in_snapshot(txid, $3)
        and pg_visible_in_snapshot(txid, $4)
    order by seq
    fetch first $5 rows with ties
) as page
order by seq
