-- Purpose: one step of the saga, if the order stands where the step begins. $1 id, $2 the new state, $3 the states
--          from which it is reached, $4 a reason or null.
-- Hazard:  no row is no fault: the customer cancelled first, or this step was done before.
update customer_order
set state = $2, reason = coalesce($4, reason), changed_at = clock_timestamp()
where id = $1 and state = any ($3)
returning customer, sku, quantity, amount_cents, reason
