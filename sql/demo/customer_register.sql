-- Purpose: a new customer of the demo's shop.
-- Locks:   the new row.   Plan: one insert.   Hazard: none.
insert into shop.customer (id, name) values ($1, $2)
