-- Purpose: how events are read and delivered, whether publishing is paused, and where the log's reader stands.
-- Locks:   access share on postrider.capture.
-- Plan:    one row.
-- Hazard:  read it again in each session; others change it. A pause may have ended by itself.
select mode, delivery, delivery_term, slot_name, slot_snapshot, slot_lsn, delivered_lsn, publication,
    (select count(*) from postrider.adopted) as adopted,
    (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()) as database,
    paused_at is not null and (paused_until is null or paused_until > clock_timestamp()) as is_paused,
    pause_reason, paused_by,
    date_part('epoch', clock_timestamp() - paused_at) as paused_for_seconds,
    date_part('epoch', paused_until - clock_timestamp()) as pause_left_seconds
from postrider.capture, postrider.capture_slot
