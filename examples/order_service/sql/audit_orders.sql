-- Purpose: all orders, for the audit.
select id, customer, sku, quantity, amount_cents, state from customer_order order by id
