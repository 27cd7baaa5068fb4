-- Purpose: the outbox guards its own law. A row's txid is that of its transaction: PostgreSQL refuses any
--          other. And cursors remember which sequence gave out the values by which they look.
-- Locks:   exclusive on the outbox and its partitions, and on postrider.cursor, for a moment, without reading
--          or writing a row; on postrider.parked, which no application reads or writes, while it is rewritten.
-- Hazard:  the rule comes after the type, so that rows which are there are not looked at; it holds for new
--          ones alone. A subscription (session_replication_role = replica) may bring rows of another
--          cluster: `postrider migrate reanchor` makes them new. So do rows that are copied in.

-- A domain, not a check of the table: a check is set up again for each partition that a statement meets,
-- and costs the insert 8 % where this costs 1 % (load/insert-cost.sql).
create domain postrider.own_transaction as xid8;
comment on domain postrider.own_transaction is 'the id of the transaction that writes it';

do $migration$
declare
    settings postrider.outbox;
    root text;
    columns constant text := $columns$
        null::smallint as bucket, null::bigint as seq, null::uuid as id, null::text as aggregatetype,
        null::text as aggregateid, null::text as type, null::%s as payload, null::jsonb as headers,
        null::timestamptz as created_at, null::smallint as generation, null::boolean as published,
        null::boolean as parked$columns$;
    definition constant text := pg_get_viewdef('postrider.events'::regclass);
begin
    select * into strict settings from postrider.outbox;
    root := format('%I.%I', settings.schema_name, settings.table_name);

    -- The view reads txid. It keeps its grants and what depends on it.
    execute format('create or replace view postrider.events as select %s where false',
        format(columns, settings.payload));
    execute format('alter table %s alter column txid type postrider.own_transaction', root);
    execute 'create or replace view postrider.events as ' || definition;
end
$migration$;

alter domain postrider.own_transaction add constraint txid_is_that_of_the_transaction
    check (value = pg_current_xact_id() or current_setting('session_replication_role') = 'replica')
    not valid;

-- The sequence's storage, and the first tick of the lineage. Bounds on seq can be compared only between
-- ticks of one lineage (src/tick.rs). Null where it is not known.
alter table postrider.cursor
    add column upto_sequence bigint,
    add column upto_began xid8;

-- Such an event was parked before the sequence was set back: all others of its aggregate come after it. Others
-- hold from their own seq on.
alter table postrider.parked add column holds_all boolean not null default false;
alter table postrider.parked add column held_from bigint not null
    generated always as (case when holds_all then -4611686018427387904 else seq end) stored;
comment on column postrider.parked.holds_all is
    'whether all other events of its aggregate come after it, whatever their seq: the sequence was set back';
comment on column postrider.parked.held_from is
    'from which seq on it holds events of its aggregate that the log did not bring';
