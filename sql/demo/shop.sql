-- Purpose: the demo's own business tables: a small shop.
-- Locks:   none that anybody else holds; all objects are new.
-- Hazard:  none; the demo's database goes away with its server.

create schema shop;

create table shop.customer (
    id bigint primary key,
    name text not null,
    registered_at timestamptz not null default now()
);

create table shop.orders (
    id bigint primary key,
    customer_id bigint not null,
    status text not null check (status in ('placed', 'paid', 'shipped')),
    total_cents bigint not null check (total_cents > 0),
    -- Rises with each step of the order's life; the check compares it with the order of arrival.
    version bigint not null default 1
) with (fillfactor = 50);

create table shop.order_line (
    order_id bigint not null references shop.orders,
    line smallint not null,
    product text not null,
    quantity integer not null check (quantity > 0),
    price_cents bigint not null check (price_cents > 0),
    primary key (order_id, line)
);
