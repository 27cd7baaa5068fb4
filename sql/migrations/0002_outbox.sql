-- Purpose: the outbox itself: hash partitions (buckets) by aggregateid, in each a ring of three list
--          partitions (generations), one btree on seq per leaf, one cursor per bucket.
-- Locks:   none that an application holds; all objects are new. Reads postrider.outbox.
-- Hazard:  txid is the first column and seq comes after it on purpose: a row's transaction id is
--          assigned before its seq is drawn, and the cursor's lower bound relies on it. seq has
--          cache 1: a session that held values back would write them out of order.

do $migration$
declare
    settings postrider.outbox;
    root text;
    bucket_table text;
begin
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);

    execute format(
        $sql$
        create table %s (
            txid xid8 not null default pg_current_xact_id(),
            seq bigint generated always as identity (cache 1),
            id uuid not null default gen_random_uuid(),
            aggregatetype text not null,
            aggregateid text not null,
            type text not null,
            payload %s,
            headers jsonb,
            created_at timestamptz not null default clock_timestamp(),
            generation smallint not null
                default ((date_part('epoch', now())::bigint / %s) %% 3)::smallint
        ) partition by hash (aggregateid)
        $sql$,
        root, settings.payload, settings.generation_seconds);
    execute format('create index %I on %s (seq)', settings.table_name || '_seq', root);

    for bucket in 0 .. settings.buckets - 1 loop
        bucket_table := settings.table_name || '_b' || lpad(bucket::text, 2, '0');
        execute format(
            'create table %I.%I partition of %s for values with (modulus %s, remainder %s)'
            ' partition by list (generation)',
            settings.schema_name, bucket_table, root, settings.buckets, bucket);
        for generation in 0 .. 2 loop
            -- A leaf is emptied by truncation, which also resets its age: vacuum has nothing to do
            -- there, and its lock would only be in the way.
            execute format(
                'create table %I.%I partition of %I.%I for values in (%s)'
                ' with (autovacuum_enabled = off, toast.autovacuum_enabled = off)',
                settings.schema_name, bucket_table || '_g' || generation,
                settings.schema_name, bucket_table, generation);
        end loop;
        insert into postrider.cursor (bucket) values (bucket);
    end loop;
end
$migration$;
