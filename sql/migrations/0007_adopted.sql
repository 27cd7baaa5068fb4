-- Purpose: tables that postrider did not make, and whose rows it publishes from the log.
-- Locks:   none that an application holds; the table is new.
-- Hazard:  passed alone tells a published row from one that is not. It names transactions, so it means
--          nothing in a restored copy of the database.

create table postrider.adopted (
    schema_name text not null,
    table_name text not null,
    -- One element per part of an event: aggregateid=order_id, or type='Placed' where it is the same
    -- for all rows.
    columns text[] not null,
    -- A condition: of the rows that were there at first, those that nobody had published. Null: all.
    pending text,
    -- In which order rows are published that the stream does not bring.
    copy_order text not null,
    -- The transactions whose rows are published; null until the first rows are.
    passed pg_snapshot,
    adopted_at timestamptz not null default clock_timestamp(),
    adopted_by text not null default session_user,
    primary key (schema_name, table_name)
) with (fillfactor = 20);

-- As in the cursor: a toasted snapshot would cost a second relation for every save.
alter table postrider.adopted alter column passed set storage main;

comment on table postrider.adopted is 'tables that are read from the log and that postrider did not make';
comment on column postrider.adopted.passed is 'the transactions whose rows are published';
