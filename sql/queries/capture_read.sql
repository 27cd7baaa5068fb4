-- Purpose: how events are read, and where the log's reader stands.
-- Locks:   access share on postrider.capture.
-- Plan:    one row.
-- Hazard:  read it anew in each session; others change it.
select mode, slot_name, slot_snapshot, slot_lsn, delivered_lsn, publication,
    (select count(*) from postrider.adopted) as adopted
from postrider.capture, postrider.capture_slot
