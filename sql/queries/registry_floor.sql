-- Purpose: since which migration relays work with this schema, as the version that raised it has said.
-- Locks:   access share on postrider.migration.
-- Plan:    one row of the catalog.
-- Hazard:  null where a version raised it that said nothing.
select obj_description('postrider.migration'::regclass, 'pg_class') as words
