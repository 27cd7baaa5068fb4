-- Purpose: the orders service's own table; the outbox and the inbox stand beside it, in the same database.
-- Hazard:  none; it is made once, before the service starts.
create table customer_order (
    id text primary key,
    customer text not null,
    sku text not null,
    quantity integer not null check (quantity > 0),
    amount_cents bigint not null check (amount_cents > 0),
    -- Where the saga stands. Each change of it writes one event, so the topic tells the same story.
    state text not null default 'placed'
        check (state in ('placed', 'reserved', 'paying', 'paid', 'shipped', 'cancelled')),
    -- Why it was cancelled.
    reason text,
    placed_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp()
);
create index on customer_order (changed_at);
