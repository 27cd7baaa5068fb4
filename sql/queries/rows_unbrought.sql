-- Purpose: rows of the outbox that the snapshot $1 sees, no saved cursor has passed, and no stream brought: their seq is
--          not in $2, a multirange. At most $3.
-- Locks:   access share on the partitions and on postrider.cursor, and as cursor_floor.sql.
-- Plan:    an index scan on seq per partition, above the lowest place of any cursor (cursor_floor.sql has the
--          reason); with the settings of leaf_session.sql. A look into a multirange is a binary search.
-- Hazard:  rows that were deleted are not found: those that the stream did not bring either are lost. The cursors are
--          saved later than they are committed to Kafka.
select cohort.bucket, cohort.txid::text::bigint as txid, cohort.seq
from ({bucket_arms}) as cohort
    join postrider.cursor as saved using (bucket)
where cohort.seq > (select min({floor}) from postrider.cursor as saved)
    and pg_visible_in_snapshot(cohort.txid, $1)
    and not pg_visible_in_snapshot(cohort.txid, saved.from_snapshot)
    and not (cohort.seq <= saved."position" and pg_visible_in_snapshot(cohort.txid, saved.upto_snapshot))
    and not cohort.seq <@ $2::text::int8multirange
limit $3
