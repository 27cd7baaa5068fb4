-- Purpose: what cannot be published: the events that are set aside, whole, and what people ask for.
-- Locks:   none that an application holds; the tables are new, the view is replaced.
-- Hazard:  an event is behind its bucket's cursor and in postrider.parked, or not behind the cursor:
--          the relay parks before it saves. So a row here is the only copy once its leaf is truncated.

create table postrider.parked (
    seq bigint primary key,
    bucket smallint not null,
    id uuid not null,
    aggregatetype text not null,
    aggregateid text not null,
    type text not null,
    -- The bytes that would be the record's value.
    payload bytea,
    headers jsonb,
    created_at timestamptz not null,
    reason text not null check (reason in ('too-large', 'illegal-topic', 'bad-headers', 'bad-time',
        'topic-unavailable', 'follows')),
    detail text not null,
    -- Where it would go; null as long as nobody has tried.
    topic text,
    -- How often it was found to be unpublishable; 0 for one that only follows.
    attempts integer not null,
    parked_at timestamptz not null default clock_timestamp(),
    last_attempt_at timestamptz
);

-- By hash, as an aggregateid may be longer than a btree takes.
create index parked_aggregate on postrider.parked (bucket, hashtextextended(aggregateid, 0), seq);
create index parked_id on postrider.parked (id);
create index parked_topic on postrider.parked (bucket, topic) where reason = 'topic-unavailable';

-- Aggregates whose parked events are to be tried again, or that may have none left. The owner of the
-- bucket answers; asking twice does no harm.
create table postrider.parked_request (
    request bigint generated always as identity primary key,
    bucket smallint not null,
    aggregatetype text not null,
    aggregateid text not null,
    requested_at timestamptz not null default clock_timestamp(),
    requested_by text not null default session_user
);

comment on table postrider.parked is 'events that cannot be published, and their aggregates'' later ones';
comment on table postrider.parked_request is 'aggregates whose parked events are to be tried again';

do $migration$
declare
    settings postrider.outbox;
    arms text;
begin
    select * into strict settings from postrider.outbox;

    -- As in 0003, with a column more.
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
            left join postrider.parked p on p.seq = e.seq
        $sql$,
        arms);
    comment on view postrider.events is
        'every retained event; published is computed from its bucket''s cursor and is false as long'
        ' as the event is parked; one that was discarded or dead-lettered counts as published';
end
$migration$;
