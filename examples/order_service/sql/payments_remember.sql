-- Purpose: what was done for an order. $1 order, $2 customer, $3 amount in cents, $4 state.
insert into payment (order_id, customer, amount_cents, state) values ($1, $2, $3, $4)
