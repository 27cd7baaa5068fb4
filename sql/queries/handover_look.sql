-- Purpose: how many retained events are neither published nor parked.
-- Locks:   access share on the outbox, postrider.parked and postrider.cursor.
-- Plan:    reads every partition from end to end.
-- Hazard:  as the saved cursors tell, whichever way events are read: an instance that has ended well has saved them.
select count(*) as waiting from postrider.events where not published and not parked
