-- Purpose: takes instances from the list that are dead for a while. $1 our own name, $2 milliseconds since their
--          lease has run out.
-- Locks:   row locks on rows that nobody renews any more.
-- Plan:    a handful of rows.
-- Hazard:  one that only hung makes its row again. Its buckets are free with and without the row, and its epochs
--          are in the cursors.
delete from postrider.instance
where name <> $1
    and greatest(lease_until, renewed_at) < clock_timestamp() - $2::bigint * interval '1 millisecond'
