-- Purpose: how many events the outbox retains; for people.
-- Locks:   access share on all partitions, while it reads them.
-- Plan:    reads every partition from end to end.
-- Hazard:  it takes as long as the outbox is large; run it by hand only.
select count(*) from {outbox}
