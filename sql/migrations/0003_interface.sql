-- Purpose: what applications and operators touch: postrider.emit and the view postrider.events.
-- Locks:   none that an application holds. emit takes an advisory lock per aggregate, held to the
--          end of the writer's transaction.
-- Hazard:  two transactions that emit for the same two aggregates in opposite order can deadlock,
--          as with any two row locks; PostgreSQL then ends one of them with an error.

do $migration$
declare
    settings postrider.outbox;
    root text;
    body text;
    arms text;
begin
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);

    -- The lock is taken in a statement before the one that draws seq: whoever emits second for an
    -- aggregate draws its seq after the first has committed, so seq order is commit order.
    body := format(
        $emit$
        begin
            perform pg_catalog.pg_advisory_xact_lock(
                pg_catalog.hashtextextended($1, pg_catalog.hashtextextended($2, 0)));
            insert into %s (id, aggregatetype, aggregateid, type, payload, headers)
                values ($6, $1, $2, $3, $4, $5);
            return $6;
        end
        $emit$,
        root);
    execute format(
        $sql$
        create function postrider.emit(
            aggregatetype text, aggregateid text, type text, payload %s,
            headers jsonb default null, id uuid default gen_random_uuid())
        returns uuid
        language plpgsql
        as %L
        $sql$,
        settings.payload, body);
    execute format(
        'comment on function postrider.emit(text, text, text, %s, jsonb, uuid) is %L', settings.payload,
        'writes one event; events of one aggregate get their seq in the order of commit');

    -- One arm per bucket, so that each row meets its own bucket's cursor without a lookup by hash.
    select string_agg(
        format('select %s::smallint as bucket, b.* from %I.%I b', bucket, settings.schema_name,
            settings.table_name || '_b' || lpad(bucket::text, 2, '0')),
        ' union all ' order by bucket)
    into arms
    from generate_series(0, settings.buckets - 1) as bucket;
    execute format(
        $sql$
        create view postrider.events as
        select e.bucket, e.seq, e.id, e.aggregatetype, e.aggregateid, e.type, e.payload, e.headers,
            e.created_at, e.generation,
            pg_visible_in_snapshot(e.txid, c.from_snapshot)
                or (e.seq <= c."position" and pg_visible_in_snapshot(e.txid, c.upto_snapshot))
                as published
        from (%s) e join postrider.cursor c using (bucket)
        $sql$,
        arms);
    comment on view postrider.events is
        'every retained event; published is computed from its bucket''s cursor';
end
$migration$;

-- Writers call emit with their own rights on the outbox; they need no right on the control tables.
grant usage on schema postrider to public;
