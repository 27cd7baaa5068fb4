-- Purpose: notes of which range rows were read whose seq nobody drew, for `postrider check`. $1 its buckets,
--          $2 from, $3 upto.
-- Locks:   row locks on postrider.whole_range, which nobody else reads but `postrider check`.
-- Plan:    a row per bucket, where such rows were found; a read of the table, which has those of two days.
-- Hazard:  none: what is lost here is named once more.
with gone as (
    delete from postrider.whole_range where noted_at < now() - interval '2 days'
)
insert into postrider.whole_range (bucket, from_snapshot, upto_snapshot)
select bucket, $2::pg_snapshot, $3::pg_snapshot
from unnest($1::smallint[]) as bucket
