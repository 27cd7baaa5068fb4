-- Purpose: changes how events are delivered. $1 the way that is asked for.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  running instances follow within a second: they drain, save, and begin again.
update postrider.capture
set delivery = $1,
    delivery_term = delivery_term + 1,
    delivery_since = clock_timestamp()
where delivery <> $1
