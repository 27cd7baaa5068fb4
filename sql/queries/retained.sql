-- Purpose: how many events the outbox retains; for people.
-- Locks:   access share on all leaves, while it reads them.
-- Plan:    reads every leaf from end to end.
-- Hazard:  it takes as long as the outbox is large; run it by hand only.
select count(*) from {outbox}
