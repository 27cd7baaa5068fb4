-- Purpose: forgets instances that have been away for a day; status shows the others.
-- Locks:   row locks on rows that nobody renews any more.
-- Plan:    a handful of rows.
-- Hazard:  none: an instance that comes back makes its row again, and its epochs are in the cursors. Times in
--          the future are those of a clock that was set back, or nobody's.
delete from postrider.instance
where lease_until < clock_timestamp() - interval '1 day'
    or renewed_at < clock_timestamp() - interval '1 day'
    or renewed_at > clock_timestamp() + interval '1 day'
