-- Purpose: forgets the oldest ids once per period. $1 the period in seconds.
-- Locks:   access exclusive on the oldest partition of ids, for a moment; waits for open calls of admit for 2 s.
-- Plan:    a truncate.
-- Hazard:  in a transaction of its own: what waits behind it waits until that ends.
select postrider_inbox.turn(make_interval(secs => $1)) as is_turned
