-- Purpose: the control tables of postrider, in a schema of their own.
-- Locks:   none that an application holds; all objects are new.
-- Hazard:  the cursor is meaningful on one history of one cluster only; that is why it stores which.

comment on schema postrider is 'control tables of the postrider outbox relay';

-- One row: which table is the outbox and how it was made. Fixed for the life of the table.
create table postrider.outbox (
    singleton boolean primary key default true check (singleton),
    schema_name text not null,
    table_name text not null check (octet_length(table_name) <= 54),
    buckets smallint not null check (buckets between 1 and 64),
    payload text not null check (payload in ('json', 'jsonb', 'text', 'bytea')),
    generation_seconds integer not null check (generation_seconds between 1 and 604800)
);

-- One row per bucket: how far it is published. A snapshot, not a number (see ARCHITECTURE.md).
-- Everything visible in from_snapshot is published; of what is visible in upto_snapshot and not in
-- from_snapshot, everything with seq <= "position" is published.
create table postrider.cursor (
    bucket smallint primary key,
    -- Rises whenever an instance takes the bucket; a save carries it, so a former owner saves nothing.
    epoch bigint not null default 0,
    owner text,
    -- The history on which the snapshots mean something; null until the bucket was first taken.
    system_identifier bigint,
    timeline integer,
    lsn pg_lsn,
    from_snapshot pg_snapshot not null default '3:3:',
    upto_snapshot pg_snapshot not null default '3:3:',
    upto_next xid8 not null default '2',
    upto_floor bigint not null default 0,
    upto_ceiling bigint not null default 0,
    -- Transactions that may still have been open at upto: triples first xid, last xid, seq floor.
    carry bigint[] not null default '{}',
    "position" bigint not null default 0,
    saved_at timestamptz not null default now()
) with (fillfactor = 20);

-- Snapshots stay in the row: a toasted cursor would cost a second relation for every save.
alter table postrider.cursor
    alter column from_snapshot set storage main,
    alter column upto_snapshot set storage main,
    alter column carry set storage main;
