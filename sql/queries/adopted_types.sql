-- Purpose: how the stream writes values, type by type.
-- Locks:   none.
-- Plan:    reads pg_type; once per session of the reader.
-- Hazard:  a type that is dropped may still be in the log.
select type.oid, sender.proname::text as sender
from pg_type as type
    join pg_proc as sender on sender.oid = type.typsend
