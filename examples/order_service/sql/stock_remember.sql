-- Purpose: what was done for an order. $1 order, $2 sku, $3 quantity, $4 state.
insert into reservation (order_id, sku, quantity, state) values ($1, $2, $3, $4)
