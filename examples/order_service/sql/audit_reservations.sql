-- Purpose: what was done with the stock for each order, for the audit.
select order_id, sku, quantity, state from reservation order by order_id
