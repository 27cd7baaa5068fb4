-- Purpose: ends a reservation, if there is one. $1 order, $2 given_back or shipped.
-- Hazard:  no row is no fault: the order was cancelled after its reservation had been refused.
with settled as (
    update reservation set state = $2 where order_id = $1 and state = 'reserved' returning sku, quantity
)
update item
set reserved = reserved - settled.quantity,
    on_hand = on_hand + case when $2 = 'given_back' then settled.quantity else 0 end,
    shipped = shipped + case when $2 = 'shipped' then settled.quantity else 0 end
from settled
where item.sku = settled.sku
