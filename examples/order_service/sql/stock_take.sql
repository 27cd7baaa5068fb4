-- Purpose: lays a quantity aside, if there is as much. $1 sku, $2 quantity.
-- Hazard:  no row means that it is not there.
update item set on_hand = on_hand - $2, reserved = reserved + $2 where sku = $1 and on_hand >= $2
