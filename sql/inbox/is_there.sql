-- Purpose: whether the inbox was made, as far as a list of its migrations tells.
-- Locks:   none.
-- Plan:    one look into the catalogue.
-- Hazard:  somebody may make it right after.
select to_regclass('postrider_inbox.migration') is not null as is_there
