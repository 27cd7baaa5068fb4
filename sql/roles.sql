-- Purpose: two group roles with the least rights: postrider_writer for applications, postrider_relay
--          for the relay. Run it after `postrider migrate up`, as the same role, which must be
--          allowed to create roles; run it again after a migration. Then, for your own login roles:
--              grant postrider_writer to shop;
--              grant postrider_relay to relay;
--          To read the log (capture wal or message) the login role itself must have an attribute that
--          no group can hand on, and that a superuser gives:
--              alter role relay replication;
--          Roles belong to all databases of a server: where several have an outbox, give each its own groups,
--          or who may write in one may write in all:
--              psql -c "set postrider.writer = 'shop_writer'" -c "set postrider.relay = 'shop_relay'" -f roles.sql
-- Locks:   share locks on catalog rows only.
-- Hazard:  a role that owns the tables needs no grant, and can do much more than these. Run by a superuser, it
--          takes the right to write messages into the log from everybody else: in capture message, who may do
--          that writes events. It names what is PostgreSQL's own: what others have put into a schema of the
--          search path would else run as whoever runs this. Groups of other names keep what they were given.

do $roles$
declare
    writer pg_catalog.text;
    relay pg_catalog.text;
    former_search_path constant pg_catalog.text := pg_catalog.current_setting('search_path');
    settings postrider.outbox;
    root pg_catalog.text;
    role_name pg_catalog.text;
    part pg_catalog.regclass;
    part_of_interface pg_catalog.regprocedure;
    writes_messages pg_catalog.regprocedure;
    called pg_catalog.regprocedure;
    calls constant pg_catalog.text[] := array[
        'array_agg', 'array_position', 'bool_or', 'cardinality', 'clock_timestamp', 'convert_from',
        'convert_to', 'count', 'current_database', 'current_setting', 'date_part', 'date_trunc', 'decode',
        'encode', 'format', 'format_type', 'generate_series', 'getdatabaseencoding',
        'has_database_privilege', 'has_sequence_privilege', 'has_table_privilege', 'hashtext',
        'hashtextextended', 'isfinite', 'lag', 'lead', 'left', 'lpad', 'max', 'min', 'now', 'obj_description',
        'octet_length', 'pg_backend_pid', 'pg_blocking_pids', 'pg_column_size', 'pg_control_system',
        'pg_current_snapshot', 'pg_current_wal_flush_lsn', 'pg_current_wal_insert_lsn', 'pg_current_xact_id', 'pg_get_expr',
        'pg_get_serial_sequence', 'pg_has_role', 'pg_is_in_recovery', 'pg_last_wal_replay_lsn',
        'pg_logical_emit_message', 'pg_partition_root', 'pg_partition_tree', 'pg_relation_filenode',
        'pg_relation_size', 'pg_sequence_last_value', 'pg_sleep', 'pg_snapshot_xmax', 'pg_snapshot_xmin',
        'pg_stat_get_tuples_inserted', 'pg_stat_get_tuples_updated', 'pg_terminate_backend',
        'pg_try_advisory_lock', 'pg_try_advisory_xact_lock', 'pg_visible_in_snapshot', 'pg_walfile_name',
        'quote_ident', 'random', 'right', 'row_number', 'rtrim', 'satisfies_hash_partition', 'set_config', 'string_agg',
        'substr', 'substring', 'sum', 'to_char', 'to_regclass', 'to_regnamespace', 'to_regtype',
        'to_timestamp', 'unnest', 'version', 'width_bucket', 'acldefault', 'aclexplode', 'bool_and', 'btrim', 'concat_ws',
        'convert', 'has_schema_privilege', 'md5', 'pg_current_wal_lsn', 'pg_drop_replication_slot',
        'pg_encoding_max_length', 'pg_get_partkeydef', 'pg_get_userbyid',
        'pg_logical_slot_peek_binary_changes', 'pg_snapshot_xip', 'pg_stat_force_next_flush',
        'pg_stat_get_tuples_deleted', 'pg_wal_lsn_diff', 'pg_xact_status',
        'regexp_replace', 'set_byte', 'starts_with', 'string_to_table', 'to_jsonb'
    ];
begin
    perform pg_catalog.set_config('search_path', 'pg_catalog', true);
    writer := coalesce(nullif(current_setting('postrider.writer', true), ''), 'postrider_writer');
    relay := coalesce(nullif(current_setting('postrider.relay', true), ''), 'postrider_relay');
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);

    foreach role_name in array array[writer, relay] loop
        begin
            if not exists (select from pg_roles where rolname = role_name) then
                execute format('create role %I nologin', role_name);
            end if;
        exception
            -- Another session made it at the same time: roles belong to all databases of a server.
            when duplicate_object or unique_violation then null;
        end;
        execute format('grant usage on schema %I, postrider to %I', settings.schema_name, role_name);
    end loop;

    -- A writer needs no right on the sequence or on the partitions, and none on the columns by which the
    -- relay goes: txid, seq, created_at, generation are for their defaults alone. What emit reads of the
    -- control tables everybody may read (0006_log.sql).
    execute format('revoke insert on %s from %I', root, writer);
    execute format(
        'grant insert (id, aggregatetype, aggregateid, type, payload, headers) on %s to %I', root, writer);

    -- An insert may return the id that it has given, as mappers of objects ask for.
    execute format('grant select (id) on %s to %I', root, writer);
    -- The relay reads the partitions by their own names, and the sequence's last value. It empties
    -- the partitions of past generations.
    execute format('grant select on sequence %s to %I', pg_get_serial_sequence(root, 'seq'), relay);
    for part in select relid from pg_partition_tree(root) loop
        execute format('grant select on %s to %I', part, relay);
    end loop;
    for part in select relid from pg_partition_tree(root) where isleaf loop
        execute format('grant truncate on %s to %I', part, relay);
    end loop;
    execute format('grant select on postrider.migration, postrider.outbox, postrider.events to %I', relay);
    execute format('grant select, update on postrider.cursor to %I', relay);
    execute format('grant select, insert, update, delete on postrider.instance to %I', relay);
    execute format('grant select, insert, update, delete on postrider.parked to %I', relay);
    execute format('grant select, insert, delete on postrider.parked_request, postrider.large_part to %I', relay);
    execute format('grant select, update on postrider.capture, postrider.capture_slot to %I', relay);
    execute format('grant select, insert, delete on postrider.past_tick, postrider.whole_range to %I', relay);
    execute format('grant select, insert, update on postrider.replay, postrider.replay_bucket to %I', relay);
    execute format('grant update on postrider.log_reader to %I', relay);
    execute format('grant select, update, delete, truncate on postrider.emitting to %I', relay);
    -- Where default privileges were hardened nobody may call what others made.
    for part_of_interface in
        select oid::regprocedure from pg_proc
        where pronamespace = 'postrider'::regnamespace
            and proname in ('emit', 'event_message', 'refuse_incomplete_event')
    loop
        execute format(
            'grant execute on function %s to %I, %I', part_of_interface, writer, relay);
    end loop;
    for part_of_interface in
        select oid::regprocedure from pg_proc
        where pronamespace = 'postrider'::regnamespace
            and proname in (
                'aggregate_digest', 'has_its_partitions', 'in_utf8', 'is_saved_here', 'legible', 'park_row', 'read_row',
                'refuse_large_row', 'shortened')
    loop
        execute format('grant execute on function %s to %I', part_of_interface, relay);
    end loop;
    -- Everybody may write messages into the log by default, also what is read as an event. Whoever owns the
    -- outbox may go on.
    if (select rolsuper from pg_roles where rolname = current_user) then
        for writes_messages in
            select oid::regprocedure from pg_proc
            where pronamespace = 'pg_catalog'::regnamespace and proname = 'pg_logical_emit_message'
        loop
            execute format('revoke execute on function %s from public', writes_messages);
            execute format(
                'grant execute on function %s to %I, %I, %s', writes_messages, writer, relay,
                (select relowner::regrole from pg_class where oid = root::regclass));
        end loop;
        -- What a relay calls of PostgreSQL's own, where a hardened server lets not everybody call it.
        for called in
            select oid::regprocedure from pg_proc
            where pronamespace = 'pg_catalog'::regnamespace
                and proname = any(calls)
                and not has_function_privilege(relay, oid, 'execute')
        loop
            execute format('grant execute on function %s to %I', called, relay);
        end loop;
    end if;
    -- Adopted tables are granted one by one: grant select on <table> to the relay's group. Of what is known
    -- of them the relay changes two columns: others hold SQL that an administrator's session runs.
    execute format('revoke update on postrider.adopted from %I', relay);
    execute format('grant select, update (passed, streamed) on postrider.adopted to %I', relay);
    perform set_config('search_path', former_search_path, true);
end
$roles$;
