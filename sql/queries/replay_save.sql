-- Purpose: how far a bucket of a replay is. $1 the replay, $2 the bucket, $3 the lowest seq that was not sent, $4 how
--          many events were sent, $5 how many left out, $6 what it waits for, $7 whether it is at its end.
-- Locks:   one row.
-- Plan:    one key lookup; the update is heap-only while it goes on.
-- Hazard:  it is acknowledged up to there, whoever says so: a former owner moves nothing back. No row comes back of a
--          part that was cancelled.
update postrider.replay_bucket
set next_seq = greatest(next_seq, $3::bigint),
    sent = sent + $4::bigint,
    left_out = left_out + $5::bigint,
    trouble = $6,
    ended_at = case when $7::boolean then clock_timestamp() end
where replay = $1 and bucket = $2 and ended_at is null
