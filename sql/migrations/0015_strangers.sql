-- Purpose: nobody without rights stands in the way: what emit and the relay lock needs a right, emit locks any
--          number of aggregates, takes json and jsonb whatever the payload's type, and asks for the right to
--          insert also where it writes messages; the outbox bears publications that bring deletes.
-- Locks:   exclusive on the outbox and its partitions, and on postrider.instance, for a moment, without reading
--          or writing a row: open transactions that have written events are waited for (5 s at most).
-- Hazard:  emit took 15 us of a core and takes 22, or 24 for an aggregate that was not met before (PostgreSQL 15,
--          200 bytes of JSON, 2 headers): row locks are looked up and written, where an advisory lock is but
--          noted. An aggregate takes 60 bytes on disk, outside the log. As a message emit locks nothing. Two
--          transactions that emit for the same two aggregates in opposite order can deadlock, as with any two row
--          locks. In REPEATABLE READ the second of two that are the first ever to emit for an aggregate fails with
--          40001. A crash of the server empties the table: a transaction that was prepared before it is not waited
--          for then. A publication that brings updates and deletes finds whole rows in them.

do $migration$
declare
    settings postrider.outbox;
begin
    select * into strict settings from postrider.outbox;
    -- Whoever has emitted by the former locks has ended when this is had.
    execute format('lock table %I.%I in access exclusive mode', settings.schema_name, settings.table_name);
end
$migration$;

-- Aggregates by their hash. A row is locked to the end of the transaction that emits for its aggregate: row locks
-- are in the rows, so their number has no limit, and no lock stands for two aggregates. Rows are never updated.
-- The relay removes those that nobody has locked (src/retention.rs). Not in the log: no lock outlasts a crash.
create unlogged table postrider.emitting (
    aggregate bigint primary key,
    -- A lock needs the right to update a column; this one says nothing, and takes no space.
    held boolean
);
comment on table postrider.emitting is 'aggregates that events were emitted for: emit locks their rows';

-- In a call with an untyped payload the overload with more arguments of the type text is taken, and no
-- argument counts as one that has this domain. So an untyped payload is what it was before there were others.
create domain postrider.aggregate_type as text;
comment on domain postrider.aggregate_type is 'keeps overloads of emit from being taken for an untyped payload';

do $migration$
declare
    settings postrider.outbox;
    root text;
    content text;
    other text;
    body text;
    part regclass;
begin
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);
    -- Who may insert into the outbox finds the rows and may lock them; for others there are none, and what they
    -- would add is refused. So also for roles that were granted the outbox later, or that emit through a function
    -- of others. Two views: whoever may insert and update at once may lock by `on conflict`, which no condition
    -- holds up. By name: the views outlive another outbox of this name.
    execute format(
        $view$
        create view postrider.emitting_found as
        select aggregate, held from postrider.emitting
        where pg_catalog.has_any_column_privilege(%1$L::text, 'insert')
        $view$,
        root);
    execute format(
        $view$
        create view postrider.emitting_new as
        select aggregate from postrider.emitting
        where pg_catalog.has_any_column_privilege(%1$L::text, 'insert')
        with check option
        $view$,
        root);
    comment on view postrider.emitting_found is 'what whoever may insert into the outbox may lock';
    comment on view postrider.emitting_new is 'what whoever may insert into the outbox may add';
    -- By column: a right on the whole would do for `lock table`.
    grant select (aggregate), update (held) on postrider.emitting_found to public;
    grant insert (aggregate) on postrider.emitting_new to public;

    content := case settings.payload
        when 'bytea' then '$4'
        when 'text' then $sql$pg_catalog.convert_to($4, 'UTF8')$sql$
        else $sql$pg_catalog.convert_to($4::pg_catalog.text, 'UTF8')$sql$
    end;

    -- As in 0006, but for the right and the lock. A row that is found and removed before it is locked is made anew.
    body := format(
        $emit$
        declare
            written pg_catalog.pg_lsn;
            hash constant pg_catalog.int8 :=
                pg_catalog.hashtextextended($1, pg_catalog.hashtextextended($2, 0));
        begin
            if exists (select from postrider.capture where mode = 'message') then
                if not pg_catalog.has_any_column_privilege(%1$L::pg_catalog.text, 'insert') then
                    raise insufficient_privilege using message = %3$L;
                end if;
                written := pg_catalog.pg_logical_emit_message(true, 'postrider.outbox',
                    postrider.event_message($1, $2, $3, %2$s, $5, $6));
                return $6;
            end if;
            loop
                perform from postrider.emitting_found where aggregate = hash for no key update;
                exit when found;
                if not pg_catalog.has_any_column_privilege(%1$L::pg_catalog.text, 'insert') then
                    raise insufficient_privilege using message = %3$L;
                end if;
                insert into postrider.emitting_new (aggregate) values (hash) on conflict do nothing;
                exit when found;
            end loop;
            insert into %4$s (id, aggregatetype, aggregateid, type, payload, headers)
                values ($6, $1, $2, $3, $4, $5);
            return $6;
        end
        $emit$,
        root, content, 'permission denied: only who may insert into ' || root || ' may emit', root);
    execute format(
        $sql$
        create or replace function postrider.emit(
            aggregatetype text, aggregateid text, type text, payload %s,
            headers jsonb default null, id uuid default gen_random_uuid())
        returns uuid
        language plpgsql
        as %L
        $sql$,
        settings.payload, body);

    -- One expression, so that PostgreSQL puts it in place of the call.
    foreach other in array array['json', 'jsonb'] loop
        continue when other = settings.payload;
        execute format(
            $sql$
            create function postrider.emit(
                aggregatetype postrider.aggregate_type, aggregateid text, type text, payload %s,
                headers jsonb default null, id uuid default gen_random_uuid())
            returns uuid
            language sql
            return postrider.emit($1::text, $2, $3, %s, $5, $6)
            $sql$,
            other,
            case settings.payload
                when 'bytea' then 'convert_to($4::text, ''UTF8'')'
                else '$4::' || settings.payload
            end);
        execute format(
            'comment on function postrider.emit(postrider.aggregate_type, text, text, %s, jsonb, uuid) is %L',
            other, 'the same for a payload of type ' || other);
    end loop;

    -- A publication of all tables brings deletes, and PostgreSQL refuses those of a table without an identity.
    -- Nothing is written for an insert. An update or a delete, as of migrate reanchor, writes the former row.
    for part in select relid from pg_partition_tree(root::regclass) loop
        execute format('alter table %s replica identity full', part);
    end loop;
end
$migration$;

-- Made to be locked: who has locked it reads the log, and others stand by. A view, as vacuum never asks for it:
-- it is locked for as long as a relay runs.
create view postrider.log_reader as select where false;
comment on view postrider.log_reader is 'locked by the instance that reads the log';

-- The session that renews the lease: whoever finds it knows that the instance lives. Null: an earlier version's.
alter table postrider.instance add column session_pid integer;
comment on column postrider.instance.session_pid is 'the backend of the session that renews the lease';
