-- Purpose: rows of one bucket that may have come there after they were written, behind its cursor: how many at most, how
--          many at least, and the first. $1 bucket, $2 the name of its table, $3 seconds of a generation. No row where
--          there are none.
-- Locks:   access share on the bucket's partitions, on postrider.cursor, past_tick and parked.
-- Plan:    reads all retained rows of the bucket, so it runs with a statement_timeout; few were changed.
-- Hazard:  a row does not tell where it came from. One that was changed in its place bears another transaction in xmin,
--          too, and the server has counted an update for it, or, where another generation of the bucket had it, a
--          removal there: what goes beyond these came from elsewhere for certain, but counts are of all time. A
--          generation that is not that of created_at was changed itself. A table that was rewritten bears the
--          rewriting transaction. A row of a savepoint was written while its transaction was open. xmin has the
--          lower half of an id; the upper half is found right for the last 2^31 transactions.
with present as (
    select greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint) as near
), in_place as (
    select coalesce(sum(pg_stat_get_tuples_updated(relid) + pg_stat_get_tuples_deleted(relid)), 0) as rows
    from pg_partition_tree(to_regclass($2))
    where isleaf
), changed as materialized (
    select written.seq, written.id
    from present
        cross join lateral (
            select seq, id, txid::xid8 as txid, tableoid, generation, created_at, xmin as writer,
                (present.near - ((present.near - xmin::text::bigint) & 4294967295))::text::xid8 as whole_writer
            from {bucket_table}
            where txid::xid8::xid <> xmin and xmin::text::bigint >= 3
        ) as written
        join pg_class as leaf on leaf.oid = written.tableoid and leaf.xmin <> written.writer
        join postrider.cursor as saved on saved.bucket = $1::smallint
        left join postrider.parked on parked.seq = written.seq and parked.id = written.id
    where parked.seq is null
        and written.generation = case when isfinite(written.created_at) then
            date_part('epoch', written.created_at)::bigint / $3::bigint % 3
        end
        and pg_visible_in_snapshot(written.txid, saved.from_snapshot)
        and written.txid < (
            select oldest from postrider.past_tick
            where next < written.whole_writer
            order by next desc
            limit 1)
)
select (select count(*) from changed) as at_most, seq, id::text as id,
    greatest((select count(*) from changed) - (select rows from in_place), 0)::bigint as at_least
from changed
order by seq
limit 1
