-- Purpose: what the latest ticks saw, for a day, so that rows are found which no cursor will ever reach:
--          those whose seq was not just drawn, or whose txid is another transaction's.
-- Locks:   none that an application holds; the table is new.
-- Hazard:  such rows are written with `overriding system value`, or by a subscription: by nobody who has the
--          rights of sql/roles.sql alone. Run sql/roles.sql again, so that the relay may remember.

create table postrider.past_tick (
    -- The tick's own transaction id: all above it draw their seq above floor.
    next xid8 primary key,
    -- All transactions below it had ended.
    oldest xid8 not null,
    floor bigint not null,
    -- Floors are compared within one lineage of the sequence.
    storage bigint not null,
    began xid8 not null,
    noted_at timestamptz not null default clock_timestamp()
);
comment on table postrider.past_tick is 'what the ticks of the last day saw; postrider check judges rows by it';
