-- Purpose: an order as its customer sees it. $1 id.
select id, customer, sku, quantity, amount_cents, state, reason from customer_order where id = $1
