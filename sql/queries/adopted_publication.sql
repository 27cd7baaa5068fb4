-- Purpose: makes the publication of the adopted tables, or takes away the last: inserts only, and a
--          partitioned table under its own name.
-- Locks:   share update exclusive on the tables, for a moment; writers are not in its way.
-- Plan:    a few catalog rows.
-- Hazard:  publishing updates or deletes would make the application's own fail for want of a replica
--          identity. Needs the ownership of the tables and the right to create in the database.
create publication {publication} for table {tables} with (publish = 'insert', publish_via_partition_root = true)
