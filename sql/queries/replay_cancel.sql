-- Purpose: cancels a replay. $1 its number.
-- Locks:   row locks, for one short transaction.
-- Plan:    one key lookup.
-- Hazard:  what is on its way is still sent: the owner looks with each page.
with known as (
    select replay, cancelled_at is not null as was_cancelled, exists (
        select from postrider.replay_bucket as part
        where part.replay = asked.replay and part.ended_at is null) as was_open
    from postrider.replay as asked
    where replay = $1
), cancelled as (
    update postrider.replay
    set cancelled_at = clock_timestamp(), cancelled_by = session_user
    where replay in (select replay from known where was_open)
), ended as (
    update postrider.replay_bucket
    set ended_at = clock_timestamp()
    where replay = $1 and ended_at is null
)
select was_cancelled, was_open from known
