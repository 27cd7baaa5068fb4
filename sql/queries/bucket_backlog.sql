-- Purpose: how many rows of one bucket wait, how large they are, and since when. $1 to $3 as bucket_looked_at.sql.
-- Locks:   as bucket_looked_at.sql.
-- Plan:    as bucket_looked_at.sql.
-- Hazard:  where as many rows were looked at as may be, the count is a lower bound, and 0 says nothing. A created_at
--          may be infinite, lie ahead, or lie long before the outbox was made: more than a day before is no age.
select
    count(*) filter (where is_recent) as recent_looked_at,
    count(*) filter (where not is_recent) as older_looked_at,
    count(*) filter (where not published and not parked) as unpublished,
    coalesce(sum(bytes) filter (where not published and not parked), 0)::bigint as bytes,
    date_part('epoch', clock_timestamp() - min(greatest(least(created_at, clock_timestamp()), since.made_at - interval '1 day'))
        filter (where not published and not parked and isfinite(created_at))) as oldest_age_seconds
from (
    {looked_at}
) as looked_at
    cross join (select applied_at as made_at from postrider.migration where version = 2) as since
