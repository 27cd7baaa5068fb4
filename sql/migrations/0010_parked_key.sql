-- Purpose: parked events have a key of their own, so that no two events can be taken for one; what cannot
--          be read or is too large is parked inside the server; and more reasons to park.
-- Locks:   exclusive on postrider.parked, which no application reads or writes, while its key is made
--          anew; the view is replaced.
-- Hazard:  a relay of an earlier version that still runs does not know the new reasons and finds no key on
--          seq to park by: it ends with an error, and nothing is lost.

alter table postrider.parked drop constraint parked_reason_check;
alter table postrider.parked
    add constraint parked_reason check (reason in ('too-large', 'illegal-topic', 'bad-headers', 'bad-time',
        'refused', 'unreadable', 'topic-unavailable', 'follows')),
    drop constraint parked_pkey,
    add primary key (turn),
    add constraint parked_event unique (seq, id);
comment on constraint parked_event on postrider.parked is
    'an event is known again by both: whoever writes rows may write a seq twice';

do $migration$
declare
    settings postrider.outbox;
    arms text;
begin
    select * into strict settings from postrider.outbox;

    -- As in 0005, but for the join: another event of the same seq is not parked.
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
            (pg_visible_in_snapshot(e.txid, c.from_snapshot)
                or (e.seq <= c."position" and pg_visible_in_snapshot(e.txid, c.upto_snapshot)))
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
