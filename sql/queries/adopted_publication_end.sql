-- Purpose: takes the publication of the adopted tables away; whoever needs it makes it again.
-- Locks:   share update exclusive on the tables, for a moment; writers are not in its way.
-- Plan:    a few catalog rows.
-- Hazard:  a stream that reads by it ends. Needs its ownership.
drop publication if exists postrider_adopted
