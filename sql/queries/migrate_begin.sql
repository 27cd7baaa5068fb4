-- Purpose: the first statements of every migration's transaction.
-- Locks:   postrider.migration against changes, to the end of the transaction: one migration at a time per
--          database. The first one finds no such table: two of those meet at the schema's name, and one fails.
-- Plan:    none.
-- Hazard:  the lock stands in a statement before those that read the registry, and the transaction
--          is READ COMMITTED: whoever waited for another migration then sees what that one did. It needs a
--          right, as an advisory lock does not: any login could keep that.
--          Migrations wait a minute for each other, but only seconds for an application's locks,
--          because others would queue up behind them.
set local lock_timeout = '60s';
do $lock$
begin
    if to_regclass('postrider.migration') is not null then
        lock table postrider.migration in share row exclusive mode;
    end if;
end
$lock$;
set local lock_timeout = '5s';
set local search_path = pg_catalog;
set local client_min_messages = warning;
