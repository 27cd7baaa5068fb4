-- Purpose: the adopted tables, in a fixed order.
-- Locks:   access share on postrider.adopted.
-- Plan:    a few rows.
-- Hazard:  their place in this order is their number in one session of the reader; read it once in each.
select schema_name, table_name, columns, pending, copy_order, passed, streamed
from postrider.adopted
order by schema_name, table_name
