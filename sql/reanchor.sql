-- Purpose: sets the cursors anew on a restored, promoted or otherwise replaced database, which postrider
--          refuses because the saved snapshots mean nothing there: `postrider migrate reanchor`.
-- Locks:   exclusive on the outbox: writers wait while it runs.
-- Plan:    rewrites every retained row once; the newest row by the end of each leaf's index on seq.
-- Hazard:  every retained event is published again, with its old id. Nothing is lost: rows get the
--          transaction id of this statement, so that the first tick sees all of them as new. A sequence
--          that is behind its rows (tables come by logical replication, sequences do not) is led behind
--          them: it would give out their numbers again. Parked events lose their places in the other
--          cluster's log: what holds them is their number from here on.

do $reanchor$
declare
    former_search_path constant pg_catalog.text := pg_catalog.current_setting('search_path');
    settings postrider.outbox;
    root pg_catalog.text;
    sequence pg_catalog.regclass;
    highest pg_catalog.int8;
begin
    -- What others have put into a schema of the search path does not run as whoever runs this.
    perform pg_catalog.set_config('search_path', 'pg_catalog', true);
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);
    sequence := pg_get_serial_sequence(root, 'seq')::regclass;
    execute format('lock table %s in exclusive mode', root);
    execute format('select max(seq) from %s', root) into highest;
    if highest > 4611686018427387904 then
        raise exception 'a row of % has the seq %, which no sequence gave out; insert its event anew'
            ' without a seq and delete the row', root, highest
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    if highest > coalesce(pg_sequence_last_value(sequence), 0) then
        perform setval(sequence, highest);
    end if;
    execute format('update %s set txid = default', root);
    update postrider.cursor
    set system_identifier = null,
        timeline = null,
        lsn = null,
        database_oid = null,
        cursor_oid = null,
        from_snapshot = default,
        upto_snapshot = default,
        upto_next = default,
        upto_floor = default,
        upto_ceiling = default,
        carry = default,
        "position" = default,
        upto_sequence = default,
        upto_began = default,
        owner = null,
        epoch = epoch + 1;
    -- Rows are judged by ticks of this server alone, from here on.
    delete from postrider.past_tick;
    delete from postrider.whole_range;
    update postrider.parked set commit_lsn = null, commit_index = null where commit_lsn is not null;
    -- The hash of a text is that of the bytes of this server's encoding, and in its order of bytes.
    update postrider.parked as parked
    set bucket = here.bucket
    from (
        select turn, remainder as bucket
        from postrider.parked
            cross join generate_series(0, settings.buckets - 1) as remainder
        where satisfies_hash_partition(root::regclass, settings.buckets, remainder, aggregateid)
    ) as here
    where here.turn = parked.turn and here.bucket <> parked.bucket;
    -- What was committed when a replay was asked for is told by a snapshot of the former server.
    update postrider.replay_bucket set ended_at = clock_timestamp() where ended_at is null;
    update postrider.replay as asked
    set cancelled_at = clock_timestamp(), cancelled_by = 'reanchor'
    where cancelled_at is null
        and exists (
            select from postrider.replay_bucket as part
            where part.replay = asked.replay and part.ended_at >= transaction_timestamp());
    -- The log brings nothing again: the table is read first, and a new slot is made meanwhile. Messages
    -- have no table, and their slot stays.
    update postrider.capture_slot
    set slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
    where (select mode from postrider.capture) = 'wal';
    -- What was committed to Kafka counts no more.
    update postrider.capture set delivery_term = delivery_term + 1;
    -- Of adopted tables all rows that are pending come again.
    update postrider.adopted set passed = null;
    perform set_config('search_path', former_search_path, true);
end
$reanchor$;
