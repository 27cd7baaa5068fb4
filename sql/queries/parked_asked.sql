-- Purpose: whether anybody has asked that parked events be tried again, and has no answer yet.
-- Locks:   access share on postrider.parked_request.
-- Plan:    stops at the first row.
-- Hazard:  none.
select exists (select from postrider.parked_request) as is_asked
