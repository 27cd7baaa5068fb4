-- Purpose: which events a consumer has seen: one row per aggregate with the highest number, and a ring of ids for
--          events without a number.
-- Locks:   none that an application holds; all objects are new.
-- Hazard:  what is forgotten here comes twice if it is repeated. Who may execute admit may say of any event, under
--          any consumer's name, that it was seen.

-- The columns that change are in no index, and a page has room: an update stays in its page.
create table postrider_inbox.aggregate (
    consumer text collate "C",
    aggregatetype text collate "C",
    aggregateid text collate "C",
    -- The highest that were admitted, each null where no event had such a number.
    seq bigint,
    position numeric,
    -- What these were before the last transaction: so its statement knows what was new to it.
    seq_before bigint,
    position_before numeric,
    admitted_on date not null default current_date,
    primary key (consumer, aggregatetype, aggregateid)
) with (fillfactor = 80);

create table postrider_inbox.event (
    generation smallint not null,
    consumer text collate "C" not null,
    id uuid not null,
    primary key (consumer, id, generation)
) partition by list (generation);
create table postrider_inbox.event_g0 partition of postrider_inbox.event for values in (0);
create table postrider_inbox.event_g1 partition of postrider_inbox.event for values in (1);
create table postrider_inbox.event_g2 partition of postrider_inbox.event for values in (2);

-- One row: the generation of ids that is filled.
create table postrider_inbox.ring (
    singleton boolean primary key default true check (singleton),
    generation smallint not null default 0 check (generation between 0 and 2),
    turned_at timestamptz not null default clock_timestamp()
);
insert into postrider_inbox.ring default values;

comment on table postrider_inbox.aggregate is 'the highest number of each aggregate that a consumer has admitted';
comment on table postrider_inbox.event is 'ids of events without a number that a consumer has admitted';
comment on table postrider_inbox.ring is 'which generation of ids is filled; turn empties the oldest';

-- Which of a poll's records are new, in their order; one element per record in each array, and a null in place of
-- an array of nulls. A record is known by its
-- seq, without one by its position, without both by its id. An event is new once: with the transaction it is
-- admitted, or not. All rows are locked in one order, whoever calls, so that no two calls wait for each other.
create function postrider_inbox.admit(
    consumer text, aggregatetypes text[], aggregateids text[], seqs bigint[], positions numeric[], ids uuid[])
returns boolean[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- The planner knows neither how long the arrays are nor how much the tables will hold. Arrays are matched by hash or
-- order, tables are looked into by their keys.
set enable_nestloop = off
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $admit$
#variable_conflict use_column
declare
    records constant integer := coalesce(cardinality($3), 0);
    is_new boolean[] := array_fill(false, array[records]);
    by_id constant boolean := exists (
        select from unnest($3, $4, $5) as given (aggregateid, seq, position)
        where given.seq is null and given.position is null);
    filled smallint;
    place bigint;
begin
    if $1 is null or array_position($2, null) is not null or array_position($3, null) is not null then
        raise null_value_not_allowed using message = 'the consumer and the names of an aggregate must not be null';
    elsif (records = all (array[
        cardinality($2), coalesce(cardinality($4), records), coalesce(cardinality($5), records),
        coalesce(cardinality($6), records)])) is not true
    then
        raise array_subscript_error using message = 'each array must have one element per record';
    end if;

    for place in
        with given as materialized (
            -- The index takes no long name: of one the hash stands for it.
            select case
                    when octet_length(aggregatetype) <= 1000 then aggregatetype
                    else 'sha256:' || encode(sha256(convert_to(aggregatetype, 'UTF8')), 'hex')
                end collate "C" as aggregatetype,
                case
                    when octet_length(aggregateid) <= 1000 then aggregateid
                    else 'sha256:' || encode(sha256(convert_to(aggregateid, 'UTF8')), 'hex')
                end collate "C" as aggregateid,
                seq, position, place
            from unnest($2, $3, $4, $5) with ordinality
                as given (aggregatetype, aggregateid, seq, position, place)
            where seq is not null or position is not null
        ), moved as (
            insert into postrider_inbox.aggregate as kept
                (consumer, aggregatetype, aggregateid, seq, position)
            select $1, aggregatetype, aggregateid, max(seq), max(position)
            from given
            group by aggregatetype, aggregateid
            order by aggregatetype, aggregateid
            on conflict (consumer, aggregatetype, aggregateid) do update
            set seq = greatest(kept.seq, excluded.seq),
                position = greatest(kept.position, excluded.position),
                seq_before = kept.seq,
                position_before = kept.position,
                admitted_on = current_date
            where excluded.seq > kept.seq
                or excluded.position > kept.position
                or kept.seq is null and excluded.seq is not null
                or kept.position is null and excluded.position is not null
            returning aggregatetype, aggregateid, seq_before, position_before
        )
        -- Of two that have the same number the first is the event, the other its repeat.
        select min(given.place)
        from given join moved using (aggregatetype, aggregateid)
        where case
            when given.seq is not null then given.seq > moved.seq_before or moved.seq_before is null
            else given.position > moved.position_before or moved.position_before is null
        end
        group by aggregatetype, aggregateid, given.seq, case when given.seq is null then given.position end
    loop
        is_new[place] := true;
    end loop;

    if by_id then
        if exists (
            select from unnest($3, $4, $5, $6) as given (aggregateid, seq, position, id)
            where given.seq is null and given.position is null and given.id is null)
        then
            raise null_value_not_allowed using
                message = 'a record has neither seq nor position nor id',
                hint = 'Pass the header id, or let the relay add numbers: --add-headers seq,position.';
        end if;
        -- Whoever turns the ring waits for all that hold this. The next statement looks at what they have committed.
        select generation into strict filled from postrider_inbox.ring for key share;
        for place in
            with given as materialized (
                select id, min(place) as place
                from unnest($4, $5, $6) with ordinality as given (seq, position, id, place)
                where given.seq is null and given.position is null
                group by id
            ), admitted as (
                insert into postrider_inbox.event (generation, consumer, id)
                select filled, $1, id
                from given
                where (
                    select count(*)
                    from postrider_inbox.event as former
                    where former.consumer = $1 and former.id = given.id and former.generation <> filled) = 0
                order by id
                on conflict do nothing
                returning id
            )
            select given.place from given join admitted using (id)
        loop
            is_new[place] := true;
        end loop;
    end if;
    return is_new;
end
$admit$;
comment on function postrider_inbox.admit(text, text[], text[], bigint[], numeric[], uuid[]) is
    'which records of a poll are new to a consumer; in the transaction of their effects';

-- Begins another generation of ids, if the last began as long ago, and forgets the oldest: ids are kept for one to
-- two periods more than the one that is filled. False if it is too early, or somebody is in the way.
create function postrider_inbox.turn(period interval) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $turn$
declare
    next smallint;
begin
    if period is null or period < interval '1 minute' then
        raise invalid_parameter_value using message = 'ids are to be kept for a minute at least';
    end if;
    if exists (select from postrider_inbox.ring where turned_at > clock_timestamp() - period) then
        return false;
    end if;
    select (generation + 1) % 3 into next
    from postrider_inbox.ring
    where turned_at <= clock_timestamp() - period
    for update;
    if next is null then
        return false;
    end if;
    execute format('truncate postrider_inbox.event_g%s', next);
    update postrider_inbox.ring set generation = next, turned_at = clock_timestamp();
    return true;
exception
    when lock_not_available then return false;
end
$turn$;
comment on function postrider_inbox.turn(interval) is
    'forgets the oldest ids once per period; call it at any time, from a session of its own';

-- Forgets the aggregates of which no event was admitted for so long; says how many. Needed only where aggregates
-- come and go without end.
create function postrider_inbox.forget(idle interval) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $forget$
declare
    forgotten bigint;
begin
    if idle is null or idle < interval '1 day' then
        raise invalid_parameter_value using message = 'aggregates are to be kept for a day at least';
    end if;
    delete from postrider_inbox.aggregate where admitted_on < (clock_timestamp() - idle)::date;
    get diagnostics forgotten = row_count;
    return forgotten;
end
$forget$;
comment on function postrider_inbox.forget(interval) is
    'forgets aggregates without events for so long; longer than the topic and the outbox keep theirs';

revoke execute on function postrider_inbox.admit(text, text[], text[], bigint[], numeric[], uuid[]),
    postrider_inbox.turn(interval), postrider_inbox.forget(interval) from public;
