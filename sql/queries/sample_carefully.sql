-- Purpose: a look as sample.sql takes it, where that failed over a value: each row as far as it can be read, and what
--          PostgreSQL says of the rest. Parameters as there.
-- Locks:   as sample.sql.
-- Plan:    as sample.sql; then each row's values one by one, each in a subtransaction: for small looks.
-- Hazard:  as sample.sql. Nothing but places, times and what is compared may be read outside postrider.read_row: it
--          would end the look.
select sample.seq, sample.id, kept.kept_aggregatetype, kept.kept_aggregateid, kept.kept_type,
    case when kept.fault is null then kept.kept_payload end as payload,
    case when kept.fault is null then kept.kept_headers end as headers,
    sample.created_at,
    case when kept.fault is not null then 0::smallint end as bucket,
    null::bigint as event_bytes,
    kept.fault
from (
    select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
    from ({unseen}) as unseen
    order by seq desc
    limit $6
) as sample
    cross join lateral postrider.read_row(sample.id, sample.aggregatetype, sample.aggregateid, sample.type,
        sample.payload, sample.headers, {event_bytes_max}) as kept
where kept.event_bytes is null or kept.event_bytes <= {event_bytes_max}
order by sample.seq
