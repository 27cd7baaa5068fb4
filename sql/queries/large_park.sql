-- Purpose: parks a message that was taken up in parts, as an event.
--          $1 our buckets, $2 their epochs, $3 the outbox, $4 how many buckets it has, $5 seq, $6 id,
--          $7 created_at, $8 where the texts begin, $9 the lengths of aggregatetype, aggregateid, type and
--          headers; null where the message is no event: then $10 is its kind of aggregate, and the payload is all
--          of it; $11 and $12 whether there are headers and a payload, $13 reason, $14 detail, $15 commit_lsn,
--          $16 commit_index. Answers whether the bucket is ours.
-- Locks:   a share lock on the cursor of the event's bucket, row locks, for one short transaction.
-- Plan:    one key lookup; the large values are the server's alone.
-- Hazard:  as parked_insert.sql. An error of class 22 tells that a text is none.
with whole as materialized (
    select string_agg(content, ''::bytea order by part) as content
    from pg_temp.postrider_large
), parts as materialized (
    select content, $8::integer as texts, coalesce($9::integer[], array[0, 0, 0, 0]) as lengths
    from whole
), given as materialized (
    select
        coalesce($10::text, convert_from(substring(content from texts + 1 for lengths[1]), 'UTF8'))
            as aggregatetype,
        convert_from(substring(content from texts + lengths[1] + 1 for lengths[2]), 'UTF8')
            as aggregateid,
        convert_from(
            substring(content from texts + lengths[1] + lengths[2] + 1 for lengths[3]), 'UTF8') as type,
        case when $11::boolean then
            convert_from(
                substring(content from texts + lengths[1] + lengths[2] + lengths[3] + 1 for lengths[4]),
                'UTF8')
        end as headers,
        case when $12::boolean then
            substring(
                content from texts + lengths[1] + lengths[2] + lengths[3] + lengths[4] + 1)
        end as payload
    from parts
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
            attempts, last_attempt_at, commit_lsn, commit_index)
    select $5::bigint, mine.bucket, $6::uuid, placed.aggregatetype, placed.aggregateid, placed.type,
        placed.payload, placed.headers, $7::timestamptz, $13::text, $14::text, 1, clock_timestamp(),
        $15::pg_lsn, $16::bigint
    from placed
        join mine on mine.bucket = placed.bucket
    on conflict do nothing
)
select exists (select from mine) as is_mine
