-- Purpose: one line of a new order.
-- Locks:   the new row, and the order's row in share mode.   Plan: one insert.   Hazard: none.
insert into shop.order_line (order_id, line, product, quantity, price_cents)
values ($1, $2, $3, $4, $5)
