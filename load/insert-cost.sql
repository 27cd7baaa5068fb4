-- What each part of the outbox costs the one who writes it:
--
--     psql "$DATABASE_URL" -X -f load/insert-cost.sql
--
-- Tables that lack one part each are filled in turns, five rounds of 200,000 rows in transactions of
-- 100, by one session with synchronous_commit = off: so the time is that of the inserting backend, not
-- of the disk. All is made in a schema of its own, which is dropped at the end.

\set ON_ERROR_STOP on
set client_min_messages = warning;
set synchronous_commit = off;
create schema insert_cost;
set search_path = insert_cost;

-- As in migration 0009: the rule comes after the type.
create domain own_transaction as xid8;

create table variant (position serial, name text primary key, columns text, buckets int, generations int, indexed boolean);
create table took (variant text, round int, nanoseconds float8);

insert into variant (name, columns, buckets, generations, indexed) values
    ('as it is',                'txid seq id created generation', 16, 3, true),
    ('txid of any transaction', 'any seq id created generation', 16, 3, true),
    ('a check of txid instead', 'any seq id created generation check', 16, 3, true),
    ('without the index',       'txid seq id created generation', 16, 3, false),
    ('without generations',     'txid seq id created generation', 16, 0, true),
    ('without partitions',      'txid seq id created generation', 0, 0, true),
    ('id given by the writer',  'txid seq given created generation', 16, 3, true),
    ('without txid',            'seq id created generation', 16, 3, true),
    ('without seq, no index',   'txid id created generation', 16, 3, false),
    ('without created_at',      'txid seq id generation', 16, 3, true),
    ('generation as a constant','txid seq id created constant', 16, 3, true),
    ('four columns alone',      '', 0, 0, false);

create function make(v variant) returns void language plpgsql as $$
declare
    parts text[] := string_to_array(v.columns, ' ');
    name text := 't' || v.position;
    list text := '';
begin
    if 'txid' = any(parts) then
        list := list || 'txid own_transaction not null default pg_current_xact_id(), ';
    elsif 'any' = any(parts) then
        list := list || 'txid xid8 not null default pg_current_xact_id(), ';
    end if;
    if 'seq' = any(parts) then list := list || 'seq bigint generated always as identity (cache 1), '; end if;
    if 'id' = any(parts) then list := list || 'id uuid not null default gen_random_uuid(), '; end if;
    if 'given' = any(parts) then list := list || 'id uuid not null, '; end if;
    list := list || 'aggregatetype text not null, aggregateid text not null, type text not null, payload json';
    if v.columns <> '' then list := list || ', headers jsonb'; end if;
    if 'created' = any(parts) then list := list || ', created_at timestamptz not null default clock_timestamp()'; end if;
    if 'generation' = any(parts) then
        list := list || ', generation smallint not null default ((date_part(''epoch'', now())::bigint / 3600) % 3)::smallint';
    elsif 'constant' = any(parts) then
        list := list || ', generation smallint not null default 0';
    end if;
    if v.buckets = 0 then
        execute format('create table %I (%s)', name, list);
    else
        execute format('create table %I (%s) partition by hash (aggregateid)', name, list);
        for bucket in 0 .. v.buckets - 1 loop
            execute format('create table %I partition of %I for values with (modulus %s, remainder %s) %s',
                name || '_' || bucket, name, v.buckets, bucket,
                case when v.generations > 0 then 'partition by list (generation)' else '' end);
            for generation in 0 .. v.generations - 1 loop
                execute format('create table %I partition of %I for values in (%s)',
                    name || '_' || bucket || '_' || generation, name || '_' || bucket, generation);
            end loop;
        end loop;
    end if;
    if 'check' = any(parts) then
        execute format('alter table %I add check (txid = pg_current_xact_id()) not valid', name);
    end if;
    if v.indexed then execute format('create index on %I (seq)', name); end if;
end $$;

create procedure fill(v variant, round int) language plpgsql as $$
declare
    given boolean := v.columns like '%given%';
    statement text := format(
        'insert into %I (%s aggregatetype, aggregateid, type, payload)
         select %s ''order'', ($1 * 37 + n * 101) %% 10000, ''OrderPlaced'', $2 from generate_series(1, 100) n',
        't' || v.position, case when given then 'id,' else '' end,
        case when given then '''018f4e6a-5b1c-7def-8a00-0123456789ab'',' else '' end);
    payload json := to_json(repeat('x', 198));
    started timestamptz := clock_timestamp();
begin
    for batch in 1 .. 2000 loop
        execute statement using batch, payload;
        commit;
    end loop;
    insert into took values (v.name, round, extract(epoch from clock_timestamp() - started) * 1e9 / 200000);
    execute format('truncate %I', 't' || v.position);
    commit;
end $$;

select make(v) from variant v order by position \g /dev/null
alter domain own_transaction add constraint txid_is_that_of_the_transaction
    check (value = pg_current_xact_id() or current_setting('session_replication_role') = 'replica')
    not valid;

create procedure measure() language plpgsql as $$
declare
    v variant;
begin
    for round in 0 .. 5 loop
        for v in select * from variant order by position loop
            call fill(v, round);
        end loop;
    end loop;
end $$;
call measure();

-- The first round warms up.
select variant,
    round(min(nanoseconds)::numeric / 1000, 2) as least_us,
    round((percentile_cont(0.5) within group (order by nanoseconds))::numeric / 1000, 2) as median_us,
    round(max(nanoseconds)::numeric / 1000, 2) as most_us
from took join variant on name = variant
where round > 0 group by variant, position order by position;

drop schema insert_cost cascade;
