-- Purpose: how many rows of an adopted table the stream does not bring.
-- Locks:   access share on the table.
-- Plan:    reads the table once.
-- Hazard:  runs in the transaction whose snapshot is the slot's.
select count(*)
from {table} as adopted_row
where {condition}
