-- Purpose: keeps writers out of {outbox} until the transaction ends, so that what it retains can be told exactly.
-- Locks:   share on the outbox and its partitions; share row exclusive on postrider.handover: one at a time.
-- Plan:    none.
-- Hazard:  a transaction that has written and is open keeps the lock from us. It is not waited for: it is a writer, and
--          they are to be stopped first.
set local lock_timeout = '5s';
lock table {outbox} in share mode;
lock table postrider.handover in share row exclusive mode;
