-- Purpose: texts come as they lie in the database.
-- Locks:   none. Plan: none.
-- Hazard:  to be converted by whoever reads: a session in UTF-8 ends at the first text that has no equivalent.
set client_encoding = 'SQL_ASCII'
