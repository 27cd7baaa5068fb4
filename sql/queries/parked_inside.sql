-- Purpose: the end of each statement that parks an event inside the server: of what is in `given`, with bucket null
--          where it follows from the aggregate's id. $1 our buckets, $2 their epochs, $3 the outbox, $4 how many
--          buckets it has, $5 seq, $6 id, $7 reason, $8 detail, $9 fault, $10 commit_lsn, $11 commit_index; behind
--          these come the statement's own. Answers whether there is such an event, and whether its bucket is ours.
-- Locks:   a share lock on the cursor of the event's bucket, row locks, for one short transaction.
-- Plan:    one key lookup; the large values are the server's alone.
-- Hazard:  as parked_insert.sql. An error of class 22 tells that a text is none.
placed as materialized (
    select aggregatetype, aggregateid, type, payload, headers, created_at,
        coalesce(bucket, (
            select remainder
            from generate_series(0, $4::integer - 1) as remainder
            where satisfies_hash_partition($3::text::regclass, $4::integer, remainder, given.aggregateid)
        )::smallint) as bucket
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
        placed.payload, placed.headers, placed.created_at, $7::text, $8::text, 1, clock_timestamp(),
        $10::pg_lsn, $11::bigint, $9::text
    from placed
        join mine on mine.bucket = placed.bucket
    on conflict do nothing
)
select exists (select from placed) as is_there, exists (select from mine) as is_mine
