-- Purpose: adopts a table. $1 its schema, $2 its name, $3 the columns, $4 which rows are pending,
--          $5 their order, $6 the transactions whose rows are published, if that is known.
-- Locks:   none beyond the new row.
-- Plan:    one row.
-- Hazard:  a table that is adopted already stays as it was: what it has passed must not be forgotten.
insert into postrider.adopted (schema_name, table_name, columns, pending, copy_order, passed)
values ($1, $2, $3, $4, $5, $6)
on conflict do nothing
