-- Purpose: the read model's sums, for the audit.
select customer, orders, shipped, cancelled, spent_cents from customer_view order by customer
