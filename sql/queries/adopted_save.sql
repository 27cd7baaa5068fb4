-- Purpose: the rows of these transactions are published, in the adopted tables of these schemas ($4) and names ($5).
--          $1 the snapshot that names them, $2 the epoch under which we own bucket 0, and with it all, $3 ids above the
--          lowest that the snapshot lacks that are transactions of their own.
-- Locks:   a share lock on one cursor and row locks, for one short transaction.
-- Plan:    a few rows.
-- Hazard:  it is on disk before the slot is confirmed: what is confirmed never comes again. A table that was adopted
--          since is not among them: nothing of it is published.
with owned as materialized (
    select from postrider.cursor where bucket = 0 and epoch = $2 for share
)
update postrider.adopted
set passed = $1, streamed = $3
where exists (select from owned)
    and (schema_name, table_name) in (select * from unnest($4::text[], $5::text[]))
