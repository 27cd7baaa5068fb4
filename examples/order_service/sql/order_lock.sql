-- Purpose: makes sure that an order is seen as it was committed last. $1 id.
-- Locks:   the order's row, to the end of the transaction: whoever writes the order's next event waits here. So the
--          events of one order are written in the order in which the order changed.
-- Hazard:  a commit that is on its way is waited for if the row was there before; a new row just cannot be seen yet.
select from customer_order where id = $1 for update
