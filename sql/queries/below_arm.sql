-- Purpose: one partition's arm of below.sql: one generation of a bucket.
-- Locks:   as below.sql.
-- Plan:    16 rows from the end of the index up to the bound. Where there are fewer, they are all that lie there. Else the
--          blocks from the first of these on, or all where they are few. `seq + 0` and `is true` keep the planner from
--          the index, by which it would read all retained rows. Few nodes: it takes longer to set up the arms than to read
--          what was appended.
-- Hazard:  each of the last rows below the bound was drawn before the range began, and most were then written;
--          not all 16 are of sessions that drew and waited.
select case
    when last.rows < 16 then last.lowest
    else (
        select min(seq + 0)
        from {bucket_table}
        where generation = {generation}
            and ctid >= format('(%s,0)', case when block > 256 then greatest(block - $4::bigint, 0) else 0 end)::tid
            and (seq <= $1::bigint) is true
            and not pg_visible_in_snapshot(txid, $2::pg_snapshot)
            and pg_visible_in_snapshot(txid, $3::pg_snapshot)
    )
    end as seq
from (
    select count(*) as rows,
        (min(ctid)::text::point)[0]::bigint as block,
        min(seq) filter (where not pg_visible_in_snapshot(txid, $2::pg_snapshot)
            and pg_visible_in_snapshot(txid, $3::pg_snapshot)) as lowest
    from (
        select ctid, seq, txid from {bucket_table}
        where generation = {generation} and seq <= $1::bigint
        order by seq desc
        limit 16
    ) as last
) as last
