-- Purpose: how many rows of an adopted table are not known to be published, and since when; for people.
-- Locks:   access share on the table.
-- Plan:    reads the table once, so it runs with a statement_timeout.
-- Hazard:  as adopted_rows.sql: one snapshot with adopted_near.sql. A created_at may be infinite or lie ahead.
select count(*) as unpublished,
    date_part('epoch', clock_timestamp() - min(least({created_at}, clock_timestamp()))
        filter (where isfinite({created_at}))) as oldest_age_seconds
from {table} as adopted_row
where {condition}
