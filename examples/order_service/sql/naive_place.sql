-- Purpose: one order. $1 id.
insert into naive_order (id) values ($1)
