-- Purpose: which of these names are in the list of instances. $1 names.
-- Locks:   access share on postrider.instance.
-- Plan:    key lookups.
-- Hazard:  one that has died is listed for a while, one that has stopped in order is not.
select name
from postrider.instance
where name = any($1)
