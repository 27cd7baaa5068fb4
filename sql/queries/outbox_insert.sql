-- Purpose: fixes how the outbox is made; runs in the transaction of migration 1.
-- Locks:   row exclusive on the table. Plan: one row.
-- Hazard:  values are filled in as text, quoted as literals, so that the printed SQL is complete.
insert into postrider.outbox (schema_name, table_name, buckets, payload, generation_seconds)
values ({schema}, {table}, {buckets}, {payload}, {generation_seconds});
