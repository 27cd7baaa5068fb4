-- Purpose: the rows of one bucket among which those are that wait; a part of bucket_backlog.sql and
--          bucket_waiting.sql. $1 floor, $2 recent floor, $3 rows to look at on either side of the latter.
-- Locks:   access share on the bucket's partitions and on postrider.cursor.
-- Plan:    the other buckets' arms fold away, as bucket is a constant; then index scans on seq.
-- Hazard:  it looks at $3 rows at most on each side. Below the recent floor few rows wait among many that do not,
--          so a look from below alone might never come to those that do.
(select true as is_recent, aggregatetype, type, published, parked, created_at,
    -- As they are stored: no value is fetched for it.
    coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(headers), 0) as bytes
from postrider.events
where bucket = {bucket} and seq > $2
order by seq
limit $3)
union all
(select false, aggregatetype, type, published, parked, created_at,
    coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(headers), 0)
from postrider.events
where bucket = {bucket} and seq > $1 and seq <= $2
order by seq
limit $3)
