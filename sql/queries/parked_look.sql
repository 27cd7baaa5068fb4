-- Purpose: whether anything of our buckets is parked, and whether anybody asks for it. $1 buckets.
-- Locks:   access share on postrider.parked and postrider.parked_request.
-- Plan:    stops at the first row; the requests are few, as they are about to be answered.
-- Hazard:  none; what it misses the next look finds.
select exists (select from postrider.parked where bucket = any($1::smallint[])) as is_any_parked,
    exists (select from postrider.parked_request where bucket = any($1::smallint[])) as is_requested
