-- Purpose: whether the database can hold a text: it fails if not. $1 the text.
-- Locks:   none.
-- Plan:    none; the text is converted when it is bound.
-- Hazard:  none.
select octet_length($1::text)
