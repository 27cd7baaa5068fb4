-- Purpose: parks events, or counts another attempt of those that are parked.
--          $1 our buckets, $2 their epochs, $3 the outbox, $4 how many buckets it has; then one element
--          per event: $5 seq, $6 id, $7 aggregatetype, $8 aggregateid, $9 type, $10 payload,
--          $11 headers, $12 created_at, $13 reason, $14 detail, $15 topic, $16 attempts,
--          $17 commit_lsn and $18 commit_index, null for an event that the log did not bring; $19 why it is
--          not here as it was written, null for one that is.
--          Answers how many different events there are, how many lie in our buckets, and how many were
--          written.
-- Locks:   share locks on the cursors of the events' buckets, row locks, for one short transaction.
-- Plan:    one key lookup per event and per bucket.
-- Hazard:  an event that does not count as ours lies in a bucket that another instance has taken. Who takes
--          a bucket waits for this transaction, so it sees its rows; whoever came first fences us off.
--          Committed with synchronous_commit = on: the cursor moves on behind it. Each row draws its
--          turn after the sort. One that is parked keeps its own. Of one that is given twice the first
--          counts: a statement may not touch a row twice.
with given as materialized (
    select distinct on (given.seq, given.id) given.*,
        (select remainder
        from generate_series(0, $4::integer - 1) as remainder
        where satisfies_hash_partition($3::text::regclass, $4::integer, remainder, given.aggregateid)
        )::smallint as bucket
    from unnest($5::bigint[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::bytea[],
            $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::integer[],
            $17::pg_lsn[], $18::bigint[], $19::text[]) with ordinality
        as given (seq, id, aggregatetype, aggregateid, type, payload, headers, created_at, reason,
            detail, topic, attempts, commit_lsn, commit_index, fault, place)
    order by given.seq, given.id, given.place
), mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket in (select bucket from given)
    for share of kept
), written as (
    insert into postrider.parked as parked
        (seq, bucket, id, aggregatetype, aggregateid, type, payload, headers, created_at, reason, detail,
            topic, attempts, last_attempt_at, commit_lsn, commit_index, fault)
    select given.seq, given.bucket, given.id, given.aggregatetype, given.aggregateid, given.type,
        given.payload, given.headers, given.created_at, given.reason, given.detail, given.topic,
        given.attempts, case when given.attempts > 0 then clock_timestamp() end, given.commit_lsn,
        given.commit_index, given.fault
    from given
        join mine on mine.bucket = given.bucket
    order by given.place
    on conflict (seq, id) do update
    set reason = case when excluded.attempts > 0 then excluded.reason else parked.reason end,
        detail = case when excluded.attempts > 0 then excluded.detail else parked.detail end,
        topic = coalesce(excluded.topic, parked.topic),
        attempts = parked.attempts + excluded.attempts,
        last_attempt_at = coalesce(excluded.last_attempt_at, parked.last_attempt_at)
    returning turn
)
select (select count(*) from given) as given,
    (select count(*) from given join mine on mine.bucket = given.bucket) as ours,
    (select count(*) from written) as written
