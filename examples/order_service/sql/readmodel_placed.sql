-- Purpose: a new order, and one order more for its customer. $1 order, $2 customer, $3 amount in cents.
-- Hazard:  it adds: done twice it is wrong. The inbox sees to it that it is done once.
with placed as (
    insert into order_view (order_id, customer, state, amount_cents) values ($1, $2, 'placed', $3)
    returning customer
)
insert into customer_view as kept (customer, orders)
select customer, 1 from placed
on conflict (customer) do update set orders = kept.orders + 1
