-- Purpose: values of adopted tables as text, whatever their types, however large, and whether they convert or not;
--          and which characters a database's encoding has.
-- Locks:   none beyond the new functions.
-- Hazard:  they run with their caller's rights, in the transaction of a copy, which must not end over one value.

-- A value as PostgreSQL prints it, if that has a form in UTF-8: null of null. Of one that has none the bytes as they
-- lie there, and the same in the escape form of bytea; of one that cannot be read at all nothing. No cast: it might be
-- one that a table's owner has made; concat calls the type's output function.
create function postrider.printed(value anyelement, out printed text, out raw bytea, out fault text)
language plpgsql
as $printed$
begin
    if num_nulls(value) = 0 then
        printed := concat(value);
        -- It checks what is UTF-8 already, too.
        perform octet_length(convert_to(printed, 'UTF8'));
    end if;
exception
    when data_exception or program_limit_exceeded or internal_error then
        fault := sqlerrm || ' (SQLSTATE ' || sqlstate || ')';
        printed := null;
        begin
            raw := convert_to(concat(value), getdatabaseencoding());
            printed := encode(raw, 'escape');
        exception
            when data_exception or program_limit_exceeded or internal_error then null;
        end;
end
$printed$;

-- What some bytes of the database's encoding are in UTF-8; null where they are nothing.
create function postrider.in_utf8(bytes bytea) returns bytea
language plpgsql
as $in_utf8$
begin
    return convert(bytes, getdatabaseencoding(), 'UTF8');
exception
    when data_exception then return null;
end
$in_utf8$;

comment on function postrider.printed(anyelement) is
    'a value as text that every session can read, or why it has none';
comment on function postrider.in_utf8(bytea) is
    'what bytes of the database''s encoding are in UTF-8; null where they are nothing';

grant execute on function postrider.printed(anyelement), postrider.in_utf8(bytea) to public;
