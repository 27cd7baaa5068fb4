-- Purpose: the rows of an adopted table that the stream does not bring, each as the parts of an event, with its
--          transaction id.
-- Locks:   access share on the table, until the transaction ends.
-- Plan:    reads the table once and sorts what is left. Its rows are taken from the socket one by one.
-- Hazard:  runs in the transaction whose snapshot is the slot's: what is written later is in the stream.
select {parts}, adopted_row.xmin::text
from {table} as adopted_row
where {condition}
order by {order}
