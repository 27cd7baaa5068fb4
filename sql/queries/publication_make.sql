-- Purpose: makes a publication: inserts only. Of the outbox each partition comes under its own name, an
--          adopted table that is partitioned under the table's.
-- Locks:   share update exclusive on the tables, for a moment; writers are not in its way.
-- Plan:    a few catalog rows.
-- Hazard:  publishing updates or deletes would make the application's own fail for want of a replica
--          identity. Needs the ownership of the tables and the right to create in the database.
create publication {publication} for table {tables}
with (publish = 'insert', publish_via_partition_root = {via_root})
