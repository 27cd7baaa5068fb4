-- Purpose: makes the publication of the outbox: inserts only, each partition under its own name.
-- Locks:   share update exclusive on the outbox, for a moment; writers are not in its way.
-- Plan:    a few catalog rows.
-- Hazard:  publishing updates or deletes would make the application's own fail for want of a replica
--          identity. Needs the ownership of the table and the right to create in the database.
create publication {publication} for table {outbox} with (publish = 'insert', publish_via_partition_root = false)
