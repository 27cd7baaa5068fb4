-- Purpose: what else is known of published rows of adopted tables, and numbers for those that are copied.
-- Locks:   exclusive on postrider.adopted and postrider.capture_slot, which no application reads or writes, for
--          a moment.
-- Hazard:  streamed means something only beside the passed that it was written with.

alter table postrider.adopted add column streamed bigint[];
alter table postrider.capture_slot add column copied_rows bigint not null default 0;

comment on column postrider.adopted.streamed is
    'transactions above the oldest that passed lacks whose rows the log has brought: they are no subtransactions';
comment on column postrider.capture_slot.copied_rows is
    'how many rows of adopted tables were ever copied: numbers below it are used up';
