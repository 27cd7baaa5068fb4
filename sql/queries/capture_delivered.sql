-- Purpose: all transactions that committed before $1 in the log are published. $2 the epoch under which
--          we own bucket 0, and with it all.
-- Locks:   a share lock on one cursor and a row lock, for one short transaction.
-- Plan:    one row each.
-- Hazard:  it is on disk before the slot is confirmed; a slot ahead of it counts as lost.
with owned as materialized (
    select from postrider.cursor where bucket = 0 and epoch = $2 for share
)
update postrider.capture_slot
set delivered_lsn = $1
where exists (select from owned)
