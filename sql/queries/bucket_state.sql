-- Purpose: per bucket, who owns it and how far it is published; for people (status, check).
-- Locks:   access share on postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  an unpublished row lies above floor, never at or below it: rows of the cohort at hand lie
--          above position, later ones above the latest tick's floor or, if their transaction was
--          open then, above its carry floor (src/tick.rs).
select bucket, epoch, owner, "position",
    case when owner is not null then
        date_part('epoch', clock_timestamp() - saved_at)
    end as saved_age_seconds,
    least("position", upto_floor,
        (select min(carry[index]) from generate_series(3, cardinality(carry), 3) as index)) as floor
from postrider.cursor
order by bucket
