-- Purpose: a page as replay_page.sql gives it, where that failed over a value. Parameters as there.
-- Locks:   as there.
-- Plan:    as claim_carefully.sql.
-- Hazard:  as claim_carefully.sql. What cannot be read was never published: it is left out, and counted.
select page.seq, page.id, kept.kept_aggregatetype, kept.kept_aggregateid, kept.kept_type,
    case when kept.fault is null then kept.kept_payload end as payload,
    case when kept.fault is null then kept.kept_headers end as headers,
    page.created_at,
    case when kept.fault is not null or kept.event_bytes > {event_bytes_max} then page.bucket end as bucket,
    case when kept.event_bytes > {event_bytes_max} then kept.event_bytes end as event_bytes,
    kept.fault
from (
    select event.*
    from ({bucket_arms}) as event
    where {filter}
        and (select postrider.has_its_partitions(array[{bucket_tables}]::regclass[]))
        and pg_visible_in_snapshot(event.txid, $9)
        and not exists (
            select from postrider.parked as parked where parked.seq = event.seq and parked.id = event.id)
    order by event.seq
    fetch first $10 rows with ties
) as page
    cross join lateral postrider.read_row(page.id, page.aggregatetype, page.aggregateid, page.type,
        page.payload, page.headers, {event_bytes_max}) as kept
order by page.seq
