-- Purpose: parks a row of which values were taken up in parts. $1 to $11 as parked_inside.sql; $12 created_at,
--          $13 aggregatetype, aggregateid, type and headers, each null where it was taken up or the row has none,
--          $14 the same of the payload; $15 the numbers of these five values where they were taken up, $16 in which
--          form, $17 how their texts are written, null for the database's own encoding, $18 whether their bytes are
--          no such texts and are kept in the escape form.
-- Locks:   as parked_inside.sql.
-- Plan:    as parked_inside.sql.
-- Hazard:  as parked_inside.sql.
with taken as materialized (
    select wanted.place, wanted.form,
        case wanted.form
            when 'jsonb' then substring(parts.content from 2)
            when 'hexadecimal' then decode(encode(substring(parts.content from 3), 'escape'), 'hex')
            else parts.content
        end as content
    from unnest($15::integer[], $16::text[]) with ordinality as wanted (value, form, place)
        join (
            select value, string_agg(content, ''::bytea order by part) as content
            from postrider.large_part
            group by value
        ) as parts using (value)
), legible as materialized (
    select place,
        case when form = 'padded' then rtrim(words, ' ') else words end as words
    from (
        select place, form,
            case when $18::boolean then encode(content, 'escape')
                else convert_from(convert_to(
                    convert_from(content, coalesce($17::text, getdatabaseencoding())::name),
                    'UTF8'), 'UTF8')
            end as words
        from taken
        where place <= 4
    ) as texts
), given as materialized (
    select null::smallint as bucket, $12::timestamptz as created_at,
        coalesce(($13::text[])[1], (select words from legible where place = 1), '') as aggregatetype,
        coalesce(($13::text[])[2], (select words from legible where place = 2), '') as aggregateid,
        coalesce(($13::text[])[3], (select words from legible where place = 3), '') as type,
        coalesce(($13::text[])[4], (select words from legible where place = 4)) as headers,
        coalesce($14::bytea, (
            select case
                when form in ('bytes', 'hexadecimal') or $18::boolean or $17::text = 'UTF8' then content
                else convert_to(
                    convert_from(content, coalesce($17::text, getdatabaseencoding())::name), 'UTF8')
            end
            from taken
            where place = 5
        )) as payload
), {inside}