-- Purpose: leads the sequences of postrider's own tables behind their rows.
-- Locks:   each sequence's own, for a moment; access share on the tables.
-- Plan:    a handful of small tables.
-- Hazard:  a copy by logical replication brings rows and no sequences: the next event to be parked would be refused by
--          the key of one that is there.
do $sequences$
declare
    counted record;
    highest bigint;
begin
    for counted in
        select class.oid::regclass as place, attribute.attname as name,
            pg_get_serial_sequence(class.oid::regclass::text, attribute.attname)::regclass as sequence
        from pg_class as class
            join pg_attribute as attribute on attribute.attrelid = class.oid
        where class.relnamespace = 'postrider'::regnamespace
            and class.relkind = 'r'
            and attribute.attidentity <> ''
            and not attribute.attisdropped
    loop
        execute format('select max(%I) from %s', counted.name, counted.place) into highest;
        if highest > coalesce(pg_sequence_last_value(counted.sequence), 0) then
            perform setval(counted.sequence, highest);
        end if;
    end loop;
end
$sequences$;
