-- Purpose: times as people write them. $1 and $2 texts, or null.
-- Locks:   none.
-- Plan:    none.
-- Hazard:  without a zone they are UTC, as the session is.
select $1::text::timestamptz as since, $2::text::timestamptz as until
