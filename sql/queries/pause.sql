-- Purpose: pauses publishing. $1 why, $2 for how many seconds, null without an end.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  running instances follow within a second. A pause that is there gets the new reason and end.
update postrider.capture
set paused_at = case
        when paused_until <= clock_timestamp() then clock_timestamp()
        else coalesce(paused_at, clock_timestamp())
    end,
    paused_until = clock_timestamp() + $2::double precision * interval '1 second',
    paused_by = session_user,
    pause_reason = $1
