-- Purpose: ends a pause; gives back whether there was one.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  running instances follow within a second.
with former as materialized (
    select paused_at is not null and (paused_until is null or paused_until > clock_timestamp()) as was_paused
    from postrider.capture
    for update
), resumed as (
    update postrider.capture
    set paused_at = null, paused_until = null, paused_by = null, pause_reason = null
    where exists (select from former)
)
select was_paused from former
