-- Purpose: lets one instance read the log at a time; others stand by.
-- Locks:   exclusive on postrider.log_reader, to the end of the transaction, which is left open.
-- Plan:    none.
-- Hazard:  the lock alone proves nothing later; the epoch in every cursor save does. It needs a right, as
--          advisory locks do not: any login could keep those. The transaction is read only and READ
--          COMMITTED: between statements it has neither a number nor a snapshot, and holds back no vacuum.
begin transaction isolation level read committed, read only;
lock table postrider.log_reader in exclusive mode nowait;
