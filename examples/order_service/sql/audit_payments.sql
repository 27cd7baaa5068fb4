-- Purpose: what was done with the money for each order, for the audit.
select order_id, customer, amount_cents, state from payment order by order_id
