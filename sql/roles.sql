-- Purpose: two group roles with the least rights: postrider_writer for applications, postrider_relay
--          for the relay. Run it after `postrider migrate up`, as the same role, which must be
--          allowed to create roles; run it again after a migration. Then, for your own login roles:
--              grant postrider_writer to shop;
--              grant postrider_relay to relay;
--          To read the log (capture wal or message) the login role itself must have an attribute that
--          no group can hand on, and that a superuser gives:
--              alter role relay replication;
-- Locks:   share locks on catalog rows only.
-- Hazard:  a role that owns the tables needs no grant, and can do much more than these. Run by a superuser, it
--          takes the right to write messages into the log from everybody else: in capture message, who may do
--          that writes events.

do $roles$
declare
    settings postrider.outbox;
    root text;
    role_name text;
    part regclass;
    part_of_interface regprocedure;
    writes_messages regprocedure;
begin
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);

    foreach role_name in array array['postrider_writer', 'postrider_relay'] loop
        begin
            if to_regrole(role_name) is null then
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
    execute format('revoke insert on %s from postrider_writer', root);
    execute format(
        'grant insert (id, aggregatetype, aggregateid, type, payload, headers) on %s to postrider_writer',
        root);

    -- An insert may return the id that it has given, as mappers of objects ask for.
    execute format('grant select (id) on %s to postrider_writer', root);
    -- The relay reads the partitions by their own names, and the sequence's last value. It empties
    -- the leaves of past generations.
    execute format('grant select on sequence %s to postrider_relay', pg_get_serial_sequence(root, 'seq'));
    for part in select relid from pg_partition_tree(root) loop
        execute format('grant select on %s to postrider_relay', part);
    end loop;
    for part in select relid from pg_partition_tree(root) where isleaf loop
        execute format('grant truncate on %s to postrider_relay', part);
    end loop;
    grant select on postrider.migration, postrider.outbox, postrider.events to postrider_relay;
    grant select, update on postrider.cursor to postrider_relay;
    grant select, insert, update, delete on postrider.instance to postrider_relay;
    grant select, insert, update, delete on postrider.parked to postrider_relay;
    grant select, insert, delete on postrider.parked_request to postrider_relay;
    grant select, update on postrider.capture, postrider.capture_slot to postrider_relay;
    grant select, insert, delete on postrider.past_tick to postrider_relay;
    grant update on postrider.log_reader to postrider_relay;
    grant select, update, delete, truncate on postrider.emitting to postrider_relay;
    -- Where default privileges were hardened nobody may call what others made.
    for part_of_interface in
        select oid::regprocedure from pg_proc
        where pronamespace = 'postrider'::regnamespace
            and proname in ('emit', 'event_message', 'refuse_incomplete_event')
    loop
        execute format(
            'grant execute on function %s to postrider_writer, postrider_relay', part_of_interface);
    end loop;
    -- What is too large to be read gathers in a temporary table. The database may be another's: `check` tells then.
    begin
        execute format('grant temporary on database %I to postrider_relay', current_database());
    exception
        when insufficient_privilege then null;
    end;
    -- Everybody may write messages into the log by default, also what is read as an event. Whoever owns the
    -- outbox may go on.
    if (select rolsuper from pg_roles where rolname = current_user) then
        for writes_messages in
            select oid::regprocedure from pg_proc
            where pronamespace = 'pg_catalog'::regnamespace and proname = 'pg_logical_emit_message'
        loop
            execute format('revoke execute on function %s from public', writes_messages);
            execute format(
                'grant execute on function %s to postrider_writer, postrider_relay, %s', writes_messages,
                (select relowner::regrole from pg_class where oid = root::regclass));
        end loop;
    end if;
    -- Adopted tables are granted one by one: grant select on <table> to postrider_relay. Of what is known
    -- of them the relay changes two columns: others hold SQL that an administrator's session runs.
    revoke update on postrider.adopted from postrider_relay;
    grant select, update (passed, streamed) on postrider.adopted to postrider_relay;
end
$roles$;
