-- Purpose: a page as claim.sql gives it, where that failed over a value: each row as far as it can be read,
--          and what PostgreSQL says of the rest. Parameters as there.
-- Locks:   as claim.sql.
-- Plan:    as claim.sql; then each row's values one by one, each in a subtransaction: for small pages.
-- Hazard:  nothing but places and times may be read outside postrider.read_row: it would end the page.
select page.seq, page.id, kept.kept_aggregatetype, kept.kept_aggregateid, kept.kept_type,
    case when kept.fault is null then kept.kept_payload end as payload,
    case when kept.fault is null then kept.kept_headers end as headers,
    page.created_at,
    case when kept.fault is not null or kept.event_bytes > {event_bytes_max} then page.bucket end as bucket,
    case when kept.event_bytes > {event_bytes_max} then kept.event_bytes end as event_bytes,
    kept.fault
from (
    select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at, bucket
    from ({bucket_arms}) as cohort
    where (select postrider.has_its_partitions(array[{bucket_tables}]::regclass[]))
        and seq >= $1
        and seq <= $2
        and not pg_visible_in_snapshot(txid, $3)
        and pg_visible_in_snapshot(txid, $4)
    order by seq
    fetch first $5 rows with ties
) as page
    cross join lateral postrider.read_row(page.id, page.aggregatetype, page.aggregateid, page.type,
        page.payload, page.headers, {event_bytes_max}) as kept
order by page.seq
