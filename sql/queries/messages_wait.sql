-- Purpose: whether any message in the log is an event that was not read.
-- Locks:   takes the slot for the length of the statement; fails while somebody reads it.
-- Plan:    decodes the log from where the slot was confirmed.
-- Hazard:  a transaction that is open now may still bring one.
select exists (
    select
    from postrider.capture_slot as known
        join pg_replication_slots as slot on slot.slot_name = known.slot_name
        cross join lateral pg_logical_slot_peek_binary_changes(slot.slot_name, null, null,
            'proto_version', '1', 'publication_names', 'postrider_messages', 'messages', 'true') as change
    -- A message, bound to its transaction, with a place of 8 bytes, and the prefix postrider.outbox.
    where known.slot_lsn is not null
        and substr(change.data, 1, 2) = '\x4d01'
        and substr(change.data, 11, 17) = '\x706f737472696465722e6f7574626f7800'
)
