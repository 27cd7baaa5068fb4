-- Purpose: how events are delivered, and what exactly-once delivery remembers of each bucket.
-- Locks:   exclusive on postrider.capture and postrider.cursor, for a moment; a writer's emit reads the first.
-- Hazard:  an earlier relay knows nothing of it, and delivers at least once whatever stands here: switch when all
--          instances are of this version.

alter table postrider.capture
    add column delivery text not null default 'at-least-once'
        check (delivery in ('at-least-once', 'exactly-once')),
    -- Rises with each switch: what was committed to Kafka under another one counts no more.
    add column delivery_term bigint not null default 0,
    add column delivery_since timestamptz;
comment on column postrider.capture.delivery is
    'whether cursors are committed to Kafka in the transactions that publish (exactly-once) or saved here alone';

alter table postrider.cursor
    -- Transactional ids that may have something open with the bucket: whoever takes it ends that first.
    add column fence text[] not null default '{}',
    -- Under this term a cursor of the bucket is committed to Kafka; null until the first is.
    add column delivery_term bigint;
alter table postrider.cursor alter column fence set storage main;
