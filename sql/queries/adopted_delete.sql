-- Purpose: gives an adopted table back. $1 its schema, $2 its name.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  which of its rows are published is forgotten with it.
delete from postrider.adopted
where schema_name = $1 and table_name = $2
