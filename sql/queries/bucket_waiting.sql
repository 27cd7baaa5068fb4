-- Purpose: which kinds of events wait in one bucket, by which their topics are named. $1 to $3 as
--          bucket_looked_at.sql, $4 unpublished rows to take of them.
-- Locks:   as bucket_looked_at.sql.
-- Plan:    as bucket_looked_at.sql.
-- Hazard:  as bucket_looked_at.sql; rows that were not looked at may be of other kinds.
select distinct aggregatetype, type
from (
    select aggregatetype, type
    from (
        {looked_at}
    ) as looked_at
    where not published and not parked
    limit $4
) as waiting
