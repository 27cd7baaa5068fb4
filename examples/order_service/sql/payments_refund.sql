-- Purpose: gives back what was taken for an order, if anything was. $1 order.
-- Hazard:  no row is no fault: the order was cancelled before it was paid.
with refunded as (
    update payment set state = 'refunded' where order_id = $1 and state = 'taken' returning customer, amount_cents
)
update account
set balance_cents = balance_cents + refunded.amount_cents
from refunded
where account.customer = refunded.customer
returning refunded.amount_cents
