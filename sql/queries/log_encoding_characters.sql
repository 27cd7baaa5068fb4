-- Purpose: what each character of several bytes stands for in the database's encoding, in UTF-8. {single} how
--          those of one byte more begin, {pairs} how those of two bytes more do.
-- Locks:   none.
-- Plan:    tries all of them, ten to seventy thousand: within a second or two, once per session of the reader.
-- Hazard:  what stands for nothing is left out: that is the answer.
select encode(code, 'hex'), encode(character, 'hex')
from (
    select code, postrider.in_utf8(code) as character
    from (
        select prefix || set_byte('\x00'::bytea, 0, low) as code
        from unnest({single}::bytea[]) as prefix
            cross join generate_series(161, 254) as low
        union all
        select prefix || set_byte(set_byte('\x0000'::bytea, 0, high), 1, low)
        from unnest({pairs}::bytea[]) as prefix
            cross join generate_series(161, 254) as high
            cross join generate_series(161, 254) as low
    ) as codes
    offset 0
) as characters
where character is not null
