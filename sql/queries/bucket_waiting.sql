-- Purpose: which kinds of events wait in one bucket, by which their topics are named.
--          $1 floor, $2 rows to look at, $3 unpublished rows to take.
-- Locks:   access share on the bucket's leaves and on postrider.cursor.
-- Plan:    as bucket_backlog.sql.
-- Hazard:  it looks at $2 rows at most; later rows may be of other kinds.
select distinct aggregatetype, type
from (
    select aggregatetype, type
    from (
        select aggregatetype, type, published, parked
        from postrider.events
        where bucket = {bucket} and seq > $1
        order by seq
        limit $2
    ) as looked_at
    where not published and not parked
    limit $3
) as waiting
