-- Purpose: the stock service's own tables. At any moment on_hand + reserved + shipped is what there was at first:
--          the check holds it in each row, whatever the code does.
create table item (
    sku text primary key,
    initial bigint not null,
    on_hand bigint not null check (on_hand >= 0),
    reserved bigint not null default 0 check (reserved >= 0),
    shipped bigint not null default 0 check (shipped >= 0),
    check (on_hand + reserved + shipped = initial)
);

-- What was done for an order; the second thing that is done looks here.
create table reservation (
    order_id text primary key,
    sku text not null references item,
    quantity integer not null check (quantity > 0),
    state text not null check (state in ('reserved', 'refused', 'given_back', 'shipped'))
);

-- Three things of which there is plenty, and one that runs out.
insert into item (sku, initial, on_hand)
values ('lamp', 1000000, 1000000), ('chair', 1000000, 1000000), ('table', 1000000, 1000000), ('signed-print', 25, 25);
