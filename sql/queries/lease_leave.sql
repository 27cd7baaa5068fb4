-- Purpose: an instance that stops leaves the tier; the others need not wait for its lease. $1 its name.
-- Locks:   its own row.
-- Plan:    one key lookup.
-- Hazard:  only after it has let all its buckets go.
delete from postrider.instance where name = $1
