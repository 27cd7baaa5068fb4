-- Purpose: takes up the next part of a large message. $1 its number, $2 its bytes.
-- Locks:   none. Plan: one row.
-- Hazard:  none.
insert into pg_temp.postrider_large (part, content) values ($1::integer, $2::bytea)
