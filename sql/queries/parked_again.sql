-- Purpose: counts another attempt of parked events. $1 our buckets, $2 their epochs; one element per event:
--          $3 turn, $4 reason, $5 detail, $6 topic, $7 attempts. Answers how many lie in buckets that are
--          not ours.
-- Locks:   as parked_insert.sql.
-- Plan:    one key lookup per event and per bucket; no value is read.
-- Hazard:  one that is not there any more somebody has discarded meanwhile; so it shall be.
with given as materialized (
    select given.*, parked.bucket
    from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::integer[])
            as given (turn, reason, detail, topic, attempts)
        join postrider.parked as parked on parked.turn = given.turn
), mine as materialized (
    select kept.bucket
    from postrider.cursor as kept
        join unnest($1::smallint[], $2::bigint[]) as owned (bucket, epoch)
            on owned.bucket = kept.bucket and owned.epoch = kept.epoch
    where kept.bucket in (select bucket from given)
    for share of kept
), counted as (
    update postrider.parked as parked
    set reason = case when given.attempts > 0 then given.reason else parked.reason end,
        detail = case when given.attempts > 0 then given.detail else parked.detail end,
        topic = coalesce(given.topic, parked.topic),
        attempts = parked.attempts + given.attempts,
        last_attempt_at = case when given.attempts > 0 then clock_timestamp()
            else parked.last_attempt_at end
    from given
        join mine on mine.bucket = given.bucket
    where parked.turn = given.turn
)
select count(*) as foreign_rows
from given
where bucket not in (select bucket from mine)
