-- Purpose: a new order of the demo's shop.
-- Locks:   the new row.   Plan: one insert.   Hazard: none.
insert into shop.orders (id, customer_id, status, total_cents) values ($1, $2, 'placed', $3)
