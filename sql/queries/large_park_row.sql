-- Purpose: parks a row of which values were taken up in parts.
--          $1 our buckets, $2 their epochs, $3 the outbox, $4 how many buckets it has, $5 seq, $6 id,
--          $7 created_at, $8 aggregatetype, aggregateid, type and headers, each null where it was taken up or
--          the row has none, $9 the same of the payload; $10 the numbers of these five values where they were
--          taken up, $11 in which form, $12 how their texts are written, null for the database's own encoding,
--          $13 whether their bytes are no such texts and are kept in the escape form, $14 reason, $15 detail,
--          $16 fault, $17 commit_lsn, $18 commit_index. Answers whether the bucket is ours.
-- Locks:   a share lock on the cursor of the event's bucket, row locks, for one short transaction.
-- Plan:    one key lookup; the large values are the server's alone.
-- Hazard:  as parked_insert.sql. An error of class 22 tells that a text is none.
with taken as materialized (
    select wanted.place, wanted.form,
        case wanted.form
            when 'jsonb' then substring(parts.content from 2)
            when 'hexadecimal' then decode(encode(substring(parts.content from 3), 'escape'), 'hex')
            else parts.content
        end as content
    from unnest($10::integer[], $11::text[]) with ordinality as wanted (value, form, place)
        join (
            select value, string_agg(content, ''::bytea order by part) as content
            from pg_temp.postrider_large
            group by value
        ) as parts using (value)
), legible as materialized (
    select place,
        case when form = 'padded' then rtrim(words, ' ') else words end as words
    from (
        select place, form,
            case when $13::boolean then encode(content, 'escape')
                else convert_from(convert_to(
                    convert_from(content, coalesce($12::text, getdatabaseencoding())::name),
                    'UTF8'), 'UTF8')
            end as words
        from taken
        where place <= 4
    ) as texts
), given as materialized (
    select coalesce(($8::text[])[1], (select words from legible where place = 1), '') as aggregatetype,
        coalesce(($8::text[])[2], (select words from legible where place = 2), '') as aggregateid,
        coalesce(($8::text[])[3], (select words from legible where place = 3), '') as type,
        coalesce(($8::text[])[4], (select words from legible where place = 4)) as headers,
        coalesce($9::bytea, (
            select case
                when form in ('bytes', 'hexadecimal') or $13::boolean or $12::text = 'UTF8' then content
                else convert_to(
                    convert_from(content, coalesce($12::text, getdatabaseencoding())::name), 'UTF8')
            end
            from taken
            where place = 5
        )) as payload
), placed as materialized (
    select given.*,
        (select remainder
        from generate_series(0, $4::integer - 1) as remainder
        where satisfies_hash_partition($3::text::regclass, $4::integer, remainder, given.aggregateid)
        )::smallint as bucket
    from given
), mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket in (select bucket from placed)
    for share of kept
), written as (
    insert into postrider.parked
        (seq, bucket, id, aggregatetype, aggregateid, type, payload, headers, created_at, reason, detail,
            attempts, last_attempt_at, commit_lsn, commit_index, fault)
    select $5::bigint, mine.bucket, $6::uuid, placed.aggregatetype, placed.aggregateid, placed.type,
        placed.payload, placed.headers, $7::timestamptz, $14::text, $15::text, 1, clock_timestamp(),
        $17::pg_lsn, $18::bigint, $16::text
    from placed
        join mine on mine.bucket = placed.bucket
    on conflict do nothing
)
select exists (select from mine) as is_mine
