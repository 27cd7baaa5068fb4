-- Purpose: the first statements of every migration's transaction.
-- Locks:   one advisory lock to the end of the transaction: one migration at a time per database.
-- Plan:    none.
-- Hazard:  the lock stands in a statement before those that read the registry, and the transaction
--          is READ COMMITTED: whoever waited for another migration then sees what that one did.
--          Migrations wait a minute for each other, but only seconds for an application's locks,
--          because others would queue up behind them.
set local lock_timeout = '60s';
select pg_advisory_xact_lock(hashtext('postrider.migrate'), 0);
set local lock_timeout = '5s';
set local search_path = pg_catalog;
set local client_min_messages = warning;
