-- Purpose: takes an order before its next step, so that two steps of one order never cross.
-- Locks:   the order's row, to the end of the transaction.
-- Plan:    primary key.
-- Hazard:  must be a statement of its own before the event is inserted: this is what makes the
--          event's seq follow the order of commits.
select status, version, total_cents from shop.orders where id = $1 for update
