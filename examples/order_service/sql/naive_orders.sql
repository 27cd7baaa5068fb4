-- Purpose: all orders, and whether one is old enough that its event should have come. $1 seconds.
select id, placed_at < clock_timestamp() - make_interval(secs => $1) as is_settled from naive_order
