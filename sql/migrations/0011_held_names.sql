-- Purpose: a short name for the aggregate of a parked event, so that a relay keeps in memory, and asks by, a
--          few bytes of each, however long the names are.
-- Locks:   exclusive on postrider.parked, which no application reads or writes, while it is rewritten.
-- Hazard:  src/hold.rs computes the same digest of what it is about to send: both change together or not at
--          all. A relay of an earlier version that still runs does not mind the new column.

-- The first 16 bytes of sha256 over the length of the type, the type and the id, in UTF-8. A text that has no UTF-8
-- reaches no relay; it gets a digest of its own that does not rest on its bytes' meaning.
create function postrider.aggregate_digest(aggregatetype text, aggregateid text) returns bytea
language plpgsql immutable strict as
$function$
declare
    kind bytea;
begin
    kind := convert_to(aggregatetype, 'UTF8');
    return substr(sha256(int8send(octet_length(kind)) || kind || convert_to(aggregateid, 'UTF8')), 1, 16);
exception
    when untranslatable_character or character_not_in_repertoire then
        return int8send(hashtextextended(aggregateid, hashtextextended(aggregatetype, 0)))
            || int8send(hashtextextended(aggregateid, hashtextextended(aggregatetype, 1)));
end
$function$;

alter table postrider.parked
    add column aggregate bytea not null
        generated always as (postrider.aggregate_digest(aggregatetype, aggregateid)) stored;
create index parked_held on postrider.parked (aggregate);

comment on column postrider.parked.aggregate is 'a digest of aggregatetype and aggregateid';
