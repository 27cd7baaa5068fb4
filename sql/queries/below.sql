-- Purpose: the lowest seq among the rows of a cursor group's range that lie at or below its bound: nobody drew their
--          numbers when they were written, and no claim comes by them. Null where there are none.
--          $1 bound, $2 from, $3 upto, $4 how many blocks to look at before where the range began.
-- Locks:   access share on the cursor group's partitions, for as long as it looks.
-- Plan:    per partition a TID range scan of what was appended since: where that begins tell the last rows below the
--          bound (below_arm.sql). In the claims' session, in which no partition is read from end to end.
-- Hazard:  sound for what was appended. In a partition of more than 256 blocks a row may have been put into a gap that an
--          earlier one left, further back than $4: it is found if another one is, and `postrider check` names it.
--          A partition that was detached is not found by its bucket's name: the look is refused then.
select min(seq) as lowest
from ({leaf_arms}) as below
where (select postrider.has_its_partitions(array[{bucket_tables}]::regclass[]))
