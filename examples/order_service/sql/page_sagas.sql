-- Purpose: how many orders stand in each state, and why orders were cancelled, for the page.
select state, reason, count(*) as orders from customer_order group by state, reason
