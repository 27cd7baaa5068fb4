-- Purpose: orders of the two services that write twice: into this table, and by themselves into the topic.
create table naive_order (
    id text primary key,
    placed_at timestamptz not null default clock_timestamp()
);
