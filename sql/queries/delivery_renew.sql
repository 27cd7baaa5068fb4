-- Purpose: what was committed to Kafka counts no more: cursors are PostgreSQL's. Only where events are delivered
--          exactly once.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  what was published behind a saved cursor is published again. Running instances follow within a second.
update postrider.capture
set delivery_term = delivery_term + 1,
    delivery_since = clock_timestamp()
where delivery = 'exactly-once'
