-- Purpose: how many rows of one bucket wait, and since when. $1 floor, $2 recent floor, $3 rows to look at on
--          either side of the latter.
-- Locks:   access share on the bucket's leaves and on postrider.cursor.
-- Plan:    the other buckets' arms fold away, as bucket is a constant; then index scans on seq.
-- Hazard:  it looks at $3 rows at most on each side: where that many were looked at, the count is a lower
--          bound, and 0 says nothing. Below the recent floor few rows wait among many that do not, so a look
--          from below alone might never come to those that do. A created_at may be infinite or lie ahead.
select
    count(*) filter (where is_recent) as recent_looked_at,
    count(*) filter (where not is_recent) as older_looked_at,
    count(*) filter (where not published and not parked) as unpublished,
    date_part('epoch', clock_timestamp() - min(least(created_at, clock_timestamp()))
        filter (where not published and not parked and isfinite(created_at))) as oldest_age_seconds
from (
    (select true as is_recent, published, parked, created_at
    from postrider.events
    where bucket = {bucket} and seq > $2
    order by seq
    limit $3)
    union all
    (select false, published, parked, created_at
    from postrider.events
    where bucket = {bucket} and seq > $1 and seq <= $2
    order by seq
    limit $3)
) as looked_at
