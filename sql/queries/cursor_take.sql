-- Purpose: takes every bucket for one instance: the epoch rises, so that a former owner saves nothing.
--          $1 owner, $2 system identifier, $3 timeline, $4 place in the log.
-- Locks:   row locks on postrider.cursor, for one short transaction.
-- Plan:    at most 64 rows.
-- Hazard:  run it after cursor_load.sql and the comparison of histories, in the same transaction.
update postrider.cursor
set epoch = epoch + 1, owner = $1, system_identifier = $2, timeline = $3, lsn = $4
returning bucket, epoch
