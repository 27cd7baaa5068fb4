-- Purpose: whether any row of the outbox is not published.
-- Locks:   access share on the partitions.
-- Plan:    reads up to the first such row; all retained rows when there is none.
-- Hazard:  rows that are parked wait, too, but not in the table.
select exists (select from postrider.events where not published and not parked)
