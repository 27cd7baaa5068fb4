-- Purpose: what an operator steers by: the record of a hand-over to another server, and replays of published events.
-- Locks:   none that an application holds; the tables are new.
-- Hazard:  a replay that has not ended keeps its events from clean-up. Run sql/roles.sql again, so that the relay may
--          read what is asked for, and note how far it is.

-- One row, from `postrider migrate handover` until `migrate reanchor --handover` has used it up in the copy.
create table postrider.handover (
    singleton boolean primary key default true check (singleton),
    -- What the outbox retained, and that all of it was published or parked: a copy is compared with it.
    events bigint not null,
    highest_seq bigint,
    seq_sum numeric not null,
    -- The last number that the sequence had given out; copies may lack it.
    drawn bigint not null,
    system_identifier bigint not null,
    recorded_at timestamptz not null default clock_timestamp(),
    recorded_by text not null default session_user
);
comment on table postrider.handover is
    'what was retained when nothing was written and everything was published: its copy goes on from there';

create table postrider.replay (
    replay bigint generated always as identity primary key,
    -- Which events; each null for any. Types with an id each, which is null for all aggregates of the type.
    aggregatetypes text[],
    aggregateids text[],
    types text[],
    ids uuid[],
    since timestamptz,
    until timestamptz,
    -- What was committed when it was asked for.
    asked_snapshot pg_snapshot not null,
    -- A name or a template; null for the topics to which the events went before.
    to_topic text,
    -- Null: as fast as it goes.
    events_per_second integer check (events_per_second > 0),
    requested_at timestamptz not null default clock_timestamp(),
    requested_by text not null default session_user,
    cancelled_at timestamptz,
    cancelled_by text
);
comment on table postrider.replay is 'published events that are sent once more, on demand';

-- One row per bucket in which there is anything to send. The bucket's owner sends it.
create table postrider.replay_bucket (
    replay bigint not null references postrider.replay,
    bucket smallint not null,
    -- The next event to send has this seq or a higher one; all of the replay lie at or below the last.
    next_seq bigint not null,
    last_seq bigint not null,
    found bigint not null,
    sent bigint not null default 0,
    -- Those that can never be records, as when they were published to the dead letters or discarded.
    left_out bigint not null default 0,
    -- What it waits for, in words.
    trouble text,
    ended_at timestamptz,
    primary key (replay, bucket)
) with (fillfactor = 50);
create index replay_unfinished on postrider.replay_bucket (bucket) where ended_at is null;
comment on table postrider.replay_bucket is 'how far each bucket of a replay is';
