-- Purpose: a view that tells whoever has psql or an exporter of PostgreSQL only how things are, bucket by bucket.
-- Locks:   none that an application holds; the view is new.
-- Hazard:  it looks at 20,000 rows per bucket at most on either side of the place above which most that wait lie: where
--          more are there, the oldest may not be among them. A time may be infinite, or lie ahead.

create view postrider.health as
select
    cursor.bucket,
    cursor.owner,
    -- Below zero once the lease has run out; null where nobody owns the bucket, or who did is dead for long.
    date_part('epoch', least(greatest(instance.lease_until, timestamptz 'epoch'),
        clock_timestamp() + interval '100 years') - clock_timestamp()) as lease_left_seconds,
    -- Of events that are neither published nor parked; null where none was seen.
    (select date_part('epoch', clock_timestamp() - min(least(created_at, clock_timestamp())))
    from (
        (select published, parked, created_at
        from postrider.events
        where events.bucket = cursor.bucket and seq > place.recent
        order by seq
        limit 20000)
        union all
        (select published, parked, created_at
        from postrider.events
        where events.bucket = cursor.bucket and seq > place.floor and seq <= place.recent
        order by seq
        limit 20000)
    ) as looked_at
    where not published and not parked and isfinite(created_at)) as oldest_age_seconds,
    (select count(*) from postrider.parked where parked.bucket = cursor.bucket) as parked,
    -- The same in each row: take the highest. Null where no slot is read.
    (select pg_wal_lsn_diff(
            case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
            slot.restart_lsn)::bigint
    from pg_replication_slots as slot
    where slot.slot_name = (select slot_name from postrider.capture_slot)) as slot_retained_bytes
from postrider.cursor
    left join postrider.instance on instance.name = cursor.owner
    cross join lateral (
        -- An unpublished row lies above position, the latest tick's floor, or that of a transaction which was open then;
        -- a little below, as setval leaves no trace (src/order/tick.rs).
        select
            greatest(-9223372036854775552, least(cursor."position", cursor.upto_floor, (
                select min(cursor.carry[open + 2])
                from generate_series(1, cardinality(cursor.carry), 3) as open))) - 256 as floor,
            greatest(-9223372036854775552, cursor.upto_floor) - 256 as recent
    ) as place;

comment on view postrider.health is
    'per bucket: who owns it, for how long still, since when its oldest event waits, how many are parked';

-- For postgres_exporter and the like. It shows no event.
grant select on postrider.health to pg_monitor;
