-- Purpose: each customer's money, and what the payments say it should be, for the audit.
select customer, opening_cents, balance_cents,
    opening_cents - coalesce(sum(amount_cents) filter (where state = 'taken'), 0)::bigint as expected_cents
from account left join payment using (customer)
group by customer, opening_cents, balance_cents
order by customer
