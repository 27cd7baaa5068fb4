-- Purpose: cursors remember below which bound their last ranges were not read, so that rows are found there whose
--          seq nobody drew; the view tells of them; and postrider check knows where such rows were read.
-- Locks:   exclusive on postrider.cursor, for a moment; no application holds a lock there. The view is replaced.
-- Hazard:  such rows are written with `overriding system value`, or by copy: by nobody who has the rights of
--          sql/roles.sql alone. A relay of an earlier version leaves the window as it is, which then counts as
--          none. Run sql/roles.sql again, so that the relay may note where it has read.

-- It belongs to the range that ends at this tick. Null where no window is open.
alter table postrider.cursor
    add column window_since pg_snapshot,
    add column window_bound bigint,
    add column window_of xid8;
comment on column postrider.cursor.window_bound is
    'what window_since does not see and has a seq at or below it was not read yet; position lies below it while it is';

create table postrider.whole_range (
    bucket smallint not null,
    -- All rows that the second sees and the first does not were read, whatever their seq.
    from_snapshot pg_snapshot not null,
    upto_snapshot pg_snapshot not null,
    noted_at timestamptz not null default clock_timestamp()
);
comment on table postrider.whole_range is
    'where rows were read whose seq nobody drew; postrider check does not name these';

do $migration$
declare
    settings postrider.outbox;
    arms text;
begin
    select * into strict settings from postrider.outbox;

    -- As in 0010, but for what lies below an open window. What is read goes on above it.
    select string_agg(
        format('select %s::smallint as bucket, b.* from %I.%I b', bucket, settings.schema_name,
            settings.table_name || '_b' || lpad(bucket::text, 2, '0')),
        ' union all ' order by bucket)
    into arms
    from generate_series(0, settings.buckets - 1) as bucket;
    execute format(
        $sql$
        create or replace view postrider.events as
        select e.bucket, e.seq, e.id, e.aggregatetype, e.aggregateid, e.type, e.payload, e.headers,
            e.created_at, e.generation,
            case
                -- Null where no window is open.
                when e.seq <= c.window_bound and c.window_of = c.upto_next then
                    pg_visible_in_snapshot(e.txid, c.window_since)
                        or (e.seq <= c."position" and c."position" < c.window_bound
                            and pg_visible_in_snapshot(e.txid, c.upto_snapshot))
                else
                    pg_visible_in_snapshot(e.txid, c.from_snapshot)
                        or ((e.seq <= c."position"
                                or coalesce(c."position" < c.window_bound and c.window_of = c.upto_next, false))
                            and pg_visible_in_snapshot(e.txid, c.upto_snapshot))
            end
                and p.seq is null
                as published,
            p.seq is not null as parked
        from (%s) e
            join postrider.cursor c using (bucket)
            left join postrider.parked p on p.seq = e.seq and p.id = e.id
        $sql$,
        arms);
end
$migration$;
