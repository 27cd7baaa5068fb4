-- Purpose: the migrations that were applied.
-- Locks:   access share on postrider.migration.
-- Plan:    a handful of rows.
-- Hazard:  a version that this program does not know was applied by a newer one.
select version, name, checksum,
    to_char(applied_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') as applied_at, applied_by
from postrider.migration
order by version
