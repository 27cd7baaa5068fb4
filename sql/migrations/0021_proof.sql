-- Purpose: before a partition is emptied each of its rows is proven to be read: it is remembered of which ranges rows
--          were read, down to which seq, and which rows were found that nobody had read.
-- Locks:   exclusive on postrider.whole_range and postrider.past_tick, for a moment; no application holds a lock there.
-- Hazard:  a relay of an earlier version remembers no such range, and thins out what its ticks saw: of partitions that
--          were filled meanwhile less is proven. Run sql/roles.sql again, so that the relay may remember.

alter table postrider.whole_range
    alter column bucket drop not null,
    -- Of several buckets at once; bucket is null then.
    add column buckets smallint[],
    -- Rows with a seq at or below it were not read. Null where all were.
    add column above bigint,
    -- One row alone, of this partition, which nobody had read: it was parked, and is published from there.
    add column leaf oid,
    add column seq bigint,
    add column id uuid;
create index whole_range_leaf on postrider.whole_range (leaf) where leaf is not null;
comment on table postrider.whole_range is
    'which rows of a while were read, whatever their seq, or those above one; with a leaf and no seq: since when it is filled';
-- Transactions that were open at the tick, and had drawn nothing then: they draw above its floor, too.
alter table postrider.past_tick add column undrawn xid8[];
-- With it a session began that reads the log, which brings whatever comes before the next tick.
alter table postrider.past_tick add column log_begins boolean not null default false;
comment on column postrider.past_tick.next is 'the id of the tick''s own transaction: all above it draw above floor';
comment on table postrider.past_tick is
    'what ticks saw, as long as rows of their time are retained, and some for a day: rows are judged by it';
-- A publication of all tables asks by what a row that is deleted is known; these have no key.
alter table postrider.whole_range replica identity full;
