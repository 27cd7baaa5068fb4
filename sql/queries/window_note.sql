-- Purpose: notes of which ranges rows were read down to which seq, with the cursors that have passed them: a part of
--          cursor_save.sql. One element per window that was closed: $16 its buckets as text, $17 from, $18 upto, $19 its
--          bound; null where what lies below it was read, too.
-- Locks:   row locks on new rows of postrider.whole_range.
-- Plan:    a row per window: some ten a second and shard under load.
-- Hazard:  with the cursor: a row whose seq nobody drew, and that was read all the same, would else count as unread when
--          its partition is to be emptied, and be published again.
with noted as (
    insert into postrider.whole_range (buckets, from_snapshot, upto_snapshot, above)
    select buckets::smallint[], from_snapshot, upto_snapshot, above
    from unnest($16::text[], $17::pg_snapshot[], $18::pg_snapshot[], $19::bigint[])
        as given (buckets, from_snapshot, upto_snapshot, above)
)
