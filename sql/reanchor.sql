-- Purpose: sets the cursors anew on a restored, promoted or otherwise replaced database, which postrider
--          refuses because the saved snapshots mean nothing there: `postrider migrate reanchor`.
-- Locks:   exclusive on the outbox: writers wait while it runs.
-- Plan:    rewrites every retained row once.
-- Hazard:  every retained event is published again, with its old id. Nothing is lost: rows get the
--          transaction id of this statement, so that the first tick sees all of them as new.

do $reanchor$
declare
    settings postrider.outbox;
begin
    select * into strict settings from postrider.outbox;
    execute format('lock table %I.%I in exclusive mode', settings.schema_name, settings.table_name);
    execute format('update %I.%I set txid = default', settings.schema_name, settings.table_name);
    update postrider.cursor
    set system_identifier = null,
        timeline = null,
        lsn = null,
        from_snapshot = default,
        upto_snapshot = default,
        upto_next = default,
        upto_floor = default,
        upto_ceiling = default,
        carry = default,
        "position" = default,
        owner = null,
        epoch = epoch + 1;
    -- The log brings nothing again: the table is read first, and a new slot is made meanwhile. Messages
    -- have no table, and their slot stays.
    update postrider.capture_slot
    set slot_snapshot = null, slot_lsn = null, delivered_lsn = null, publication = null
    where (select mode from postrider.capture) = 'wal';
    -- Of adopted tables all rows that are pending come again.
    update postrider.adopted set passed = null;
end
$reanchor$;
