-- Purpose: the settings of every session; run once, right after the connection is made.
-- Locks:   none.
-- Plan:    none. One answer: the mark that the connection carried as a startup option.
-- Hazard:  nothing of a role's, a database's or a server's defaults may change what the relay sees,
--          when it is durable, or which objects a name means. A mark that did not arrive was
--          swallowed by a connection pooler; there these settings would belong to somebody else.
set default_transaction_isolation = 'read committed';
set default_transaction_read_only = off;
set row_security = off;
set jit = off;
set max_parallel_workers_per_gather = 0;
set statement_timeout = 0;
set lock_timeout = 0;
set idle_in_transaction_session_timeout = 0;
set client_min_messages = warning;
set synchronous_commit = on;
set search_path = pg_catalog;
set plan_cache_mode = force_generic_plan;
select current_setting('postrider.direct', true);
