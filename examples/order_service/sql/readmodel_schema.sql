-- Purpose: customers' orders as a screen would show them, built from the topic alone.
create table order_view (
    order_id text primary key,
    customer text not null,
    state text not null,
    amount_cents bigint not null,
    events integer not null default 1
);

-- One row per customer, kept up event by event: a repeat that came through would be seen here at once.
create table customer_view (
    customer text primary key,
    orders bigint not null,
    shipped bigint not null default 0,
    cancelled bigint not null default 0,
    spent_cents bigint not null default 0
);
