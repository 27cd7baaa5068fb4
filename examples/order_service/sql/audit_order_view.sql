-- Purpose: the read model's orders, for the audit.
select order_id, customer, amount_cents, state, events from order_view order by order_id
