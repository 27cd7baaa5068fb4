-- Purpose: parked events have a key of their own, so that no two events can be taken for one; what cannot
--          be read or is too large is parked inside the server; and more reasons to park.
-- Locks:   exclusive on postrider.parked, which no application reads or writes, while its key is made
--          anew; the view is replaced.
-- Hazard:  a relay of an earlier version that still runs does not know the new reasons and finds no key on
--          seq to park by: it ends with an error, and nothing is lost.

alter table postrider.parked drop constraint parked_reason_check;
alter table postrider.parked
    add constraint parked_reason check (reason in ('too-large', 'illegal-topic', 'bad-headers', 'bad-time',
        'refused', 'unreadable', 'topic-unavailable', 'follows')),
    drop constraint parked_pkey,
    add primary key (turn),
    add constraint parked_event unique (seq, id);
comment on constraint parked_event on postrider.parked is
    'an event is known again by both: whoever writes rows may write a seq twice';

-- What PostgreSQL says of columns that it could not hand over.
alter table postrider.parked add column fault text;
comment on column postrider.parked.fault is
    'why columns are not here as they were in the row; null for an event that is here whole';

-- A value as text that every session can read. Of one that has no form in UTF-8 the bytes are given in the
-- escape form of bytea, of one that cannot be read at all nothing.
create function postrider.legible(value anyelement, out legible text, out fault text)
language plpgsql
as $legible$
begin
    -- The concatenation fetches what is stored outside the row.
    legible := value::text || '';
    perform octet_length(convert_to(legible, 'UTF8'));
exception
    when data_exception or program_limit_exceeded or internal_error then
        fault := sqlerrm || ' (SQLSTATE ' || sqlstate || ')';
        begin
            legible := encode(convert_to(value::text, getdatabaseencoding()), 'escape');
        exception
            when data_exception or program_limit_exceeded or internal_error then legible := null;
        end;
end
$legible$;

-- The same for a payload, as the bytes that would be the record's value; or as the database's own bytes.
create function postrider.legible_payload(value anyelement, out legible bytea, out fault text)
language plpgsql
as $legible$
begin
    if pg_typeof(value) = 'bytea'::regtype then
        legible := value || ''::bytea;
    else
        legible := convert_to(value::text, 'UTF8');
    end if;
exception
    when data_exception or program_limit_exceeded or internal_error then
        fault := sqlerrm || ' (SQLSTATE ' || sqlstate || ')';
        legible := null;
        begin
            if pg_typeof(value) <> 'bytea'::regtype then
                legible := convert_to(value::text, getdatabaseencoding());
            end if;
        exception
            when data_exception or program_limit_exceeded or internal_error then legible := null;
        end;
end
$legible$;

-- How many bytes an event takes; null where that cannot be told. Lengths of text and bytea are known
-- without reading them.
create function postrider.event_bytes(
    aggregatetype text, aggregateid text, type text, payload anyelement, headers jsonb)
returns bigint
language plpgsql
as $bytes$
declare
    payload_bytes bigint;
begin
    if pg_typeof($4) = 'bytea'::regtype then
        payload_bytes := octet_length($4);
    else
        payload_bytes := octet_length($4::text);
    end if;
    return octet_length($1)::bigint + octet_length($2) + octet_length($3)
        + coalesce(payload_bytes, 0) + coalesce(octet_length($5::text), 0);
exception
    when data_exception or program_limit_exceeded or internal_error then return null;
end
$bytes$;

-- Ends a page before a row that is larger than what is read. The page is then read value by value.
create function postrider.refuse_large_row(seq bigint) returns boolean
language plpgsql
as $refuse$
begin
    raise program_limit_exceeded using message = 'the row of seq ' || $1 || ' is larger than what is read';
end
$refuse$;

-- A name that is too long to be read: its beginning, and a hash that tells it from others.
create function postrider.shortened(name text, bytes_max bigint) returns text
language sql immutable
return case when octet_length(name) <= bytes_max then name else left(name, 100) || ' ' || md5(name) end;

-- A row as far as it can be read, and what PostgreSQL says of the rest. Of one that takes more than
-- bytes_max its aggregate alone. An aggregate that cannot be read gets a name that no other event has.
create function postrider.read_row(
    id uuid, aggregatetype text, aggregateid text, type text, payload anyelement, headers jsonb,
    bytes_max bigint,
    out kept_aggregatetype text, out kept_aggregateid text, out kept_type text,
    out kept_payload bytea, out kept_headers text, out event_bytes bigint, out fault text)
language plpgsql
as $read$
declare
    part record;
    unknown constant text := '(unreadable ' || $1 || ')';
begin
    event_bytes := postrider.event_bytes($2, $3, $4, $5, $6);
    begin
        select * into part from postrider.legible(postrider.shortened($2, $7));
        kept_aggregatetype := coalesce(part.legible, unknown);
        fault := concat_ws('; ', nullif(fault, ''), 'aggregatetype: ' || part.fault);
        select * into part from postrider.legible(postrider.shortened($3, $7));
        kept_aggregateid := coalesce(part.legible, unknown);
        fault := concat_ws('; ', nullif(fault, ''), 'aggregateid: ' || part.fault);
    exception
        when data_exception or program_limit_exceeded or internal_error then
            kept_aggregatetype := unknown;
            kept_aggregateid := unknown;
            fault := 'aggregate: ' || sqlerrm || ' (SQLSTATE ' || sqlstate || ')';
    end;
    kept_type := '';
    if event_bytes is null or event_bytes <= $7 then
        select * into part from postrider.legible($4);
        kept_type := coalesce(part.legible, '');
        fault := concat_ws('; ', nullif(fault, ''), 'type: ' || part.fault);
        select * into part from postrider.legible_payload($5);
        kept_payload := part.legible;
        fault := concat_ws('; ', nullif(fault, ''), 'payload: ' || part.fault);
        select * into part from postrider.legible($6);
        kept_headers := part.legible;
        fault := concat_ws('; ', nullif(fault, ''), 'headers: ' || part.fault);
    end if;
    fault := nullif(fault, '');
end
$read$;

-- Parks a row of the outbox without its values leaving the server, or counts another attempt. Says how
-- many rows that were; none when the row is not there any more. What can be kept as it is is kept so; else
-- what can be read; and of a row of which even that fails its place.
create function postrider.park_row(
    bucket smallint, seq bigint, id uuid, reason text, detail text, topic text, attempts integer)
returns bigint
language plpgsql
as $park$
declare
    settings postrider.outbox;
    leaf text;
    form text;
    filled text;
    forms text[] := array[
        -- What has a form in UTF-8 is the same afterwards; what has none is refused.
        'convert_from(convert_to(e.aggregatetype, ''UTF8''), ''UTF8''),
            convert_from(convert_to(e.aggregateid, ''UTF8''), ''UTF8''),
            convert_from(convert_to(e.type, ''UTF8''), ''UTF8''), {payload},
            convert_from(convert_to(e.headers::text, ''UTF8''), ''UTF8''), null from {leaf} e',
        'k.kept_aggregatetype, k.kept_aggregateid, k.kept_type, k.kept_payload, k.kept_headers, k.fault
        from {leaf} e cross join lateral postrider.read_row(e.id, e.aggregatetype, e.aggregateid, e.type,
            e.payload, e.headers, 9223372036854775807) k',
        'u.unknown, u.unknown, '''', null, null, ''nothing of it can be read''
        from {leaf} e cross join lateral (select ''(unreadable '' || e.id || '')'' as unknown) u'];
    written bigint;
begin
    select * into strict settings from postrider.outbox;
    leaf := format('%I.%I', settings.schema_name,
        settings.table_name || '_b' || lpad($1::text, 2, '0'));
    foreach form in array forms loop
        begin
            filled := replace(form, '{leaf}', leaf);
            filled := replace(filled, '{payload}', case settings.payload
                when 'bytea' then 'e.payload' else 'convert_to(e.payload::text, ''UTF8'')' end);
            execute
                'insert into postrider.parked as parked
                    (bucket, seq, id, reason, detail, topic, attempts, last_attempt_at, created_at,
                        aggregatetype, aggregateid, type, payload, headers, fault)
                select $1, e.seq, e.id, $4, $5, $6, $7,
                    case when $7 > 0 then clock_timestamp() end, e.created_at, ' || filled || '
                where e.seq = $2 and e.id = $3
                limit 1
                on conflict (seq, id) do update
                set reason = case when excluded.attempts > 0 then excluded.reason else parked.reason end,
                    detail = case when excluded.attempts > 0 then excluded.detail else parked.detail end,
                    topic = coalesce(excluded.topic, parked.topic),
                    attempts = parked.attempts + excluded.attempts,
                    last_attempt_at = coalesce(excluded.last_attempt_at, parked.last_attempt_at)'
                using $1, $2, $3, $4, $5, $6, $7;
            get diagnostics written = row_count;
            return written;
        exception
            when data_exception or program_limit_exceeded or internal_error then
                if form = forms[3] then
                    raise;
                end if;
        end;
    end loop;
end
$park$;

comment on function postrider.legible(anyelement) is
    'a value as text that every session can read, or why it has none';
comment on function postrider.legible_payload(anyelement) is
    'a payload as the record''s value, or why it has none';
comment on function postrider.event_bytes(text, text, text, anyelement, jsonb) is
    'how many bytes an event takes; null where that cannot be told';
comment on function postrider.refuse_large_row(bigint) is 'raises program_limit_exceeded';
comment on function postrider.shortened(text, bigint) is
    'a name, or its beginning and a hash where it is too long';
comment on function postrider.read_row(uuid, text, text, text, anyelement, jsonb, bigint) is
    'a row of the outbox as far as it can be read';
comment on function postrider.park_row(smallint, bigint, uuid, text, text, text, integer) is
    'parks a row of the outbox without its values leaving the server';

-- They run with their caller's rights; where default privileges are hardened, nobody could call them.
grant execute on function
    postrider.legible(anyelement),
    postrider.legible_payload(anyelement),
    postrider.event_bytes(text, text, text, anyelement, jsonb),
    postrider.refuse_large_row(bigint),
    postrider.shortened(text, bigint),
    postrider.read_row(uuid, text, text, text, anyelement, jsonb, bigint),
    postrider.park_row(smallint, bigint, uuid, text, text, text, integer)
to public;

do $migration$
declare
    settings postrider.outbox;
    arms text;
begin
    select * into strict settings from postrider.outbox;

    -- As in 0005, but for the join: another event of the same seq is not parked.
    select string_agg(
        format('select %s::smallint as bucket, b.* from %I.%I b', bucket, settings.schema_name,
            settings.table_name || '_b' || lpad(bucket::text, 2, '0')),
        ' union all ' order by bucket)
    into arms
    from generate_series(0, settings.buckets - 1) as bucket;
    execute format(
        $sql$
        create or replace view postrider.events as
        select e.bucket, e.seq, e.id, e.aggregatetype, e.aggregateid, e.type, e.payload, e.headers,
            e.created_at, e.generation,
            (pg_visible_in_snapshot(e.txid, c.from_snapshot)
                or (e.seq <= c."position" and pg_visible_in_snapshot(e.txid, c.upto_snapshot)))
                and p.seq is null
                as published,
            p.seq is not null as parked
        from (%s) e
            join postrider.cursor c using (bucket)
            left join postrider.parked p on p.seq = e.seq and p.id = e.id
        $sql$,
        arms);
end
$migration$;
