-- Purpose: the migrations of the inbox that were applied.
-- Locks:   access share on postrider_inbox.migration.
-- Plan:    a handful of rows.
-- Hazard:  a version that this program does not know was applied by a newer one.
select version, name from postrider_inbox.migration order by version
