-- Purpose: an order's next state, and the customer's sums. $1 order, $2 state.
-- Hazard:  it adds: done twice it is wrong. The inbox sees to it that it is done once.
with moved as (
    update order_view set state = $2, events = events + 1 where order_id = $1
    returning customer, state, amount_cents
)
update customer_view as kept
set shipped = kept.shipped + (moved.state = 'shipped')::integer,
    cancelled = kept.cancelled + (moved.state = 'cancelled')::integer,
    spent_cents = kept.spent_cents + case when moved.state = 'shipped' then moved.amount_cents else 0 end
from moved
where kept.customer = moved.customer
