-- Purpose: takes up the next part of what is too large. $1 its number, $2 of which of a row's values it is,
--          $3 its bytes.
-- Locks:   none. Plan: one row.
-- Hazard:  none.
insert into postrider.large_part (part, value, content) values ($1::integer, $2::integer, $3::bytea)
