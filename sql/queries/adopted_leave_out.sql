-- Purpose: notes of an adopted table, $1 its schema, $2 its name, that the stream does not bring its rows until they are
--          copied: no transaction has the id 0.
-- Locks:   a row lock, for one short transaction.
-- Plan:    one row.
-- Hazard:  what is published of it stays known. A table of which nothing was noted yet is not streamed either.
update postrider.adopted
set streamed = array[0]::bigint[] || streamed
where schema_name = $1 and table_name = $2 and not 0 = any(streamed)
