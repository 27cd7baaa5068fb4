-- Purpose: begins the proof that all rows of a partition are read: from here on nobody writes into it.
-- Locks:   share on the partition, nowait, to the end of the proof: it holds up no reader, only whoever writes into a
--          past generation. Before it, for a moment and nowait, the lock that truncation takes: where that is not to be
--          had, nothing is read for nothing.
-- Plan:    none.
-- Hazard:  a relay that is stopped in the middle would hold the lock: therefore the limit on idle transactions.
begin isolation level read committed;
set local lock_timeout = '50ms';
set local statement_timeout = '10s';
set local idle_in_transaction_session_timeout = '2s';
set local synchronous_commit = local;
savepoint truncation;
lock table only {table} in access exclusive mode nowait;
rollback to savepoint truncation;
lock table only {table} in share mode nowait
