-- Purpose: parks a row of the outbox that is too large to be read, inside the server.
--          $1 our buckets, $2 their epochs, $3 bucket, $4 seq, $5 id, $6 aggregatetype, $7 aggregateid,
--          $8 type, $9 headers, each null where the row's own counts, $10 the encoding of a payload that is no
--          bytea, null where it does not convert, $11 reason, $12 detail, $13 commit_lsn, $14 commit_index. Answers whether the bucket is ours,
--          and whether the row is parked.
-- Locks:   a share lock on the bucket's cursor, row locks, for one short transaction.
-- Plan:    one index scan on seq per leaf of the bucket; the large values are read by the server alone.
-- Hazard:  as parked_insert.sql. A row that is gone from the table is not parked by this. The payload's
--          bytes are those that would be the record's value.
with mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket = $3::smallint
    for share of kept
), whole as materialized (
    select id, aggregatetype, aggregateid, type, {payload} as payload, headers, created_at
    from {bucket_table}
    where seq = $4::bigint and id = $5::uuid
    limit 1
), written as (
    insert into postrider.parked
        (seq, bucket, id, aggregatetype, aggregateid, type, payload, headers, created_at, reason, detail,
            attempts, last_attempt_at, commit_lsn, commit_index, fault)
    select $4::bigint, mine.bucket, whole.id, coalesce($6::text, whole.aggregatetype),
        coalesce($7::text, whole.aggregateid), coalesce($8::text, whole.type), whole.payload,
        coalesce($9::text, whole.headers::text), whole.created_at, $11::text, $12::text, 1,
        clock_timestamp(), $13::pg_lsn, $14::bigint, case when $10::text is null then $12::text end
    from whole, mine
    on conflict do nothing
)
select exists (select from mine) as is_mine, exists (select from whole) as is_there
