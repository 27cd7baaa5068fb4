-- Purpose: the relay tier: which instances are alive. Who owns a bucket stands in postrider.cursor.
-- Locks:   none that an application holds; all objects are new.
-- Hazard:  times are the database's; an instance compares them with no clock of its own.

-- One row per instance. Its lease is on all buckets whose cursor names it as the owner.
create table postrider.instance (
    name text primary key,
    shards smallint not null check (shards > 0),
    started_at timestamptz not null default clock_timestamp(),
    renewed_at timestamptz not null,
    -- From then on anybody may take its buckets.
    lease_until timestamptz not null
) with (fillfactor = 20);

comment on table postrider.instance is 'the relay''s instances and until when each holds its buckets';
comment on column postrider.cursor.owner is 'the instance that publishes this bucket; null when none does';
