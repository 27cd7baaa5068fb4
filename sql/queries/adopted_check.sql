-- Purpose: whether condition and order of a copy have a meaning; and how many rows it would publish.
-- Locks:   access share on the table.
-- Plan:    reads the table once.
-- Hazard:  none.
select count(*)
from (select from {table} as adopted_row where {condition} order by {order}) as pending
