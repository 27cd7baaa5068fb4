-- Purpose: one order. $1 id, $2 customer, $3 sku, $4 quantity, $5 amount_cents.
-- Hazard:  a customer who got no answer asks again with the same id: no row the second time, and then no event.
insert into customer_order (id, customer, sku, quantity, amount_cents)
values ($1, $2, $3, $4, $5)
on conflict (id) do nothing
