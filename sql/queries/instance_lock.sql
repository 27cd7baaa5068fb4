-- Purpose: lets one instance work on the outbox at a time; others stand by.
-- Locks:   a session-level advisory lock that ends with the session.
-- Plan:    one row.
-- Hazard:  the lock alone proves nothing later; the epoch in every cursor save does.
select pg_try_advisory_lock(hashtext('postrider.instance'), 0)
