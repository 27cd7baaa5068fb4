-- Purpose: how the database's texts are written, and how many bytes a character takes at most.
-- Locks:   none. Plan: one row.
-- Hazard:  none.
select current_setting('server_encoding'), pg_encoding_max_length(encoding)
from pg_database
where datname = current_database()
