-- Purpose: the next step of an order that this transaction has locked.
-- Locks:   the order's row, held already.   Plan: primary key.   Hazard: none.
update shop.orders set status = $2, version = version + 1 where id = $1
