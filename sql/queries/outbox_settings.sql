-- Purpose: which table is the outbox and how it was made.
-- Locks:   access share on postrider.outbox.
-- Plan:    one row, or none before migration 1.
-- Hazard:  none.
select schema_name, table_name, buckets, payload, generation_seconds
from postrider.outbox
