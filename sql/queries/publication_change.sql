-- Purpose: makes a publication that is there what publication_make.sql makes. It stays the same one: of a transaction
--          that has written before one was dropped and another made in its place, and commits behind that, the server
--          sends no row of a table that nobody else writes into meanwhile.
-- Locks:   share update exclusive on the tables that come and go, for a moment; writers are not in its way.
-- Plan:    a few catalog rows.
-- Hazard:  as publication_make.sql. It takes the ownership of the publication. One that is of all tables stays so.
alter publication {publication} set table {tables};
alter publication {publication} set (publish = 'insert', publish_via_partition_root = {via_root})
