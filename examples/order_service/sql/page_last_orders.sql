-- Purpose: the orders that changed last, for the page. $1 how many.
select id, customer, sku, quantity, amount_cents, state, reason
from customer_order
order by changed_at desc
limit $1
