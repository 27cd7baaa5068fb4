-- Purpose: which kinds of events wait in one bucket, by which their topics are named. $1 to $3 as
--          bucket_looked_at.sql, $4 unpublished rows to take of them.
-- Locks:   as bucket_looked_at.sql.
-- Plan:    as bucket_looked_at.sql.
-- Hazard:  as bucket_looked_at.sql; rows that were not looked at may be of other kinds. What is no text names no topic,
--          and is left out.
select aggregatetype_.legible as aggregatetype, type_.legible as type
from (
    select distinct aggregatetype, type
    from (
        select aggregatetype, type
        from (
            {looked_at}
        ) as looked_at
        where not published and not parked
        limit $4
    ) as waiting
) as kind
    cross join lateral postrider.legible(kind.aggregatetype) as aggregatetype_
    cross join lateral postrider.legible(kind.type) as type_
where aggregatetype_.fault is null and type_.fault is null
