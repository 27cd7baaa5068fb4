-- Purpose: publishing can be paused: by whom, why, since when and until when is written down for all instances.
-- Locks:   exclusive on postrider.capture, for a moment: postrider.emit reads it. No row is rewritten.
-- Hazard:  an instance of an earlier version does not know of a pause, and publishes on. Every login of the database
--          could read all columns of postrider.capture; the new ones are for roles with a grant on the table.

alter table postrider.capture
    add column paused_at timestamptz,
    -- Null: until it is resumed.
    add column paused_until timestamptz,
    add column paused_by text,
    add column pause_reason text;
comment on column postrider.capture.paused_at is 'nothing is published from here on; null while publishing goes on';

-- emit reads the mode with its caller's rights.
revoke select on postrider.capture from public;
grant select (singleton, mode, changed_at, changed_by) on postrider.capture to public;
