-- Purpose: how many rows of one bucket wait, and since when. $1 floor, $2 rows to look at.
-- Locks:   access share on the bucket's leaves and on postrider.cursor.
-- Plan:    the other buckets' arms fold away, as bucket is a constant; then an index scan on seq.
-- Hazard:  it looks at $2 rows at most: if looked_at reaches that, the count is a lower bound.
select count(*) as looked_at,
    count(*) filter (where not published and not parked) as unpublished,
    date_part('epoch', clock_timestamp() - min(created_at) filter (where not published and not parked))
        as oldest_age_seconds
from (
    select published, parked, created_at
    from postrider.events
    where bucket = {bucket} and seq > $1
    order by seq
    limit $2
) as looked_at
