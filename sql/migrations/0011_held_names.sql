-- Purpose: a short name for the aggregate of a parked event, so that a relay keeps in memory, and asks by, a
--          few bytes of each, however long the names are.
-- Locks:   exclusive on postrider.parked, which no application reads or writes, while it is rewritten.
-- Hazard:  src/hold.rs computes the same digest of what it is about to send: both change together or not at
--          all. A relay of an earlier version that still runs does not mind the new column.

-- The first 16 bytes of sha256 over the length of the type, the type and the id, in UTF-8. A name that the database
-- does not take is kept in an escape form (src/parked/escape.rs): what counts is what it stands for. A text that
-- has no UTF-8 reaches no relay; it gets a digest of its own that does not rest on its bytes' meaning.
create function postrider.aggregate_digest(aggregatetype text, aggregateid text) returns bytea
language plpgsql immutable strict as
$function$
declare
    mark constant text := 'postrider.escaped:';
    names text[] := array[aggregatetype, aggregateid];
    parts bytea[] := array[''::bytea, ''::bytea];
begin
    for place in 1 .. 2 loop
        begin
            parts[place] := case when starts_with(names[place], mark)
                then decode(substr(names[place], length(mark) + 1), 'escape')
                else convert_to(names[place], 'UTF8') end;
        exception
            when invalid_text_representation or invalid_parameter_value then
                parts[place] := convert_to(names[place], 'UTF8');
        end;
    end loop;
    return substr(sha256(int8send(octet_length(parts[1])) || parts[1] || parts[2]), 1, 16);
exception
    when untranslatable_character or character_not_in_repertoire then
        return int8send(hashtextextended(aggregateid, hashtextextended(aggregatetype, 0)))
            || int8send(hashtextextended(aggregateid, hashtextextended(aggregatetype, 1)));
end
$function$;

alter table postrider.parked
    add column aggregate bytea not null
        generated always as (postrider.aggregate_digest(aggregatetype, aggregateid)) stored;
create index parked_held on postrider.parked (aggregate, turn);
-- One id under many types does not select.
drop index postrider.parked_aggregate;

comment on column postrider.parked.aggregate is 'a digest of aggregatetype and aggregateid';
