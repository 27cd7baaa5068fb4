-- Purpose: the payments service's own tables.
create table account (
    customer text primary key,
    opening_cents bigint not null,
    balance_cents bigint not null check (balance_cents >= 0)
);

-- What was done for an order; the second thing that is done looks here.
create table payment (
    order_id text primary key,
    customer text not null references account,
    amount_cents bigint not null check (amount_cents > 0),
    state text not null check (state in ('taken', 'refused', 'refunded'))
);

-- Customers who can pay, and every tenth one who soon cannot.
insert into account (customer, opening_cents, balance_cents)
select format('customer-%s', number), cents, cents
from generate_series(0, 99) as number,
    lateral (select case when number % 10 = 9 then 5000 else 1000000000 end::bigint as cents) as purse;
