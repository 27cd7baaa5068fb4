-- Purpose: which kinds of events wait in one bucket, by which their topics are named.
--          $1 floor, $2 recent floor, $3 rows to look at on either side of the latter, $4 unpublished rows to
--          take of them.
-- Locks:   access share on the bucket's leaves and on postrider.cursor.
-- Plan:    as bucket_backlog.sql.
-- Hazard:  as bucket_backlog.sql; rows that were not looked at may be of other kinds.
select distinct aggregatetype, type
from (
    select aggregatetype, type
    from (
        (select aggregatetype, type, published, parked
        from postrider.events
        where bucket = {bucket} and seq > $2
        order by seq
        limit $3)
        union all
        (select aggregatetype, type, published, parked
        from postrider.events
        where bucket = {bucket} and seq > $1 and seq <= $2
        order by seq
        limit $3)
    ) as looked_at
    where not published and not parked
    limit $4
) as waiting
