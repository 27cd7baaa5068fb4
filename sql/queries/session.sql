-- Purpose: the settings of every session; run once, right after the connection is made.
-- Locks:   none.
-- Plan:    reads the list of settings twice, in memory. The last answer is the mark that the connection carried as a
--          startup option.
-- Hazard:  nothing of a role's, a database's or a server's defaults may end a session that is in use, or change what the
--          relay sees, when it is durable, what a text means, or which objects a name means. The first
--          query takes away whatever ends a session, a statement or a transaction after a time, also
--          what later servers add; ways of planning come back to the server's own. It counts, as its rows
--          could be taken for the mark. A mark that did not arrive was swallowed by a connection pooler;
--          there these settings would belong to somebody else. What is not pinned, and why, stands in the
--          test of the server's own list.
-- Before any query: costs that were raised for a role would have the server compile each, for seconds.
set jit = off;
-- The list itself needs more memory than a role may have been given, and may have no room on disk.
set work_mem = '4MB';
select count(set_config(name, case when name ~ '_timeout$' then '0' else boot_val end, false))
from pg_settings
where context = 'user'
    and (name ~ '^[a-z_]*(statement|lock|transaction|session)_timeout$'
        or name like 'enable\_%' and vartype = 'bool' and setting <> boot_val
        -- Where it is known, it may forbid postrider's own views.
        or name = 'restrict_nonsystem_relation_kind' and setting <> boot_val);
set quote_all_identifiers = off;
set default_transaction_isolation = 'read committed';
set default_transaction_read_only = off;
set default_transaction_deferrable = off;
set exit_on_error = off;
set row_security = off;
set max_parallel_workers_per_gather = 0;
set client_min_messages = warning;
set synchronous_commit = on;
set search_path = pg_catalog;
set plan_cache_mode = force_generic_plan;
set default_table_access_method = heap;
-- The planner would run what the owner of an adopted table has written into its constraints.
set constraint_exclusion = off;
set standard_conforming_strings = on;
set backslash_quote = safe_encoding;
set transform_null_equals = off;
set array_nulls = on;
set datestyle = 'ISO, MDY';
set intervalstyle = postgres;
set timezone = 'UTC';
set extra_float_digits = 3;
set bytea_output = hex;
set xmlbinary = base64;
set xmloption = content;
set lc_monetary = 'C';
set lc_numeric = 'C';
set lc_time = 'C';
set plpgsql.extra_errors = 'none';
set plpgsql.extra_warnings = 'none';
-- A server that does not wait for a slow reader would end its stream while Kafka is away.
set tcp_user_timeout = 0;
set tcp_keepalives_idle = 15;
set tcp_keepalives_interval = 5;
set tcp_keepalives_count = 3;
-- Whoever waits for a lock would not notice that the relay has hung up. Not every system can tell.
select count(set_config('client_connection_check_interval',
    case when version() ~ 'linux|darwin|freebsd' then '5s' else '0' end, false));
-- The reader of the log gives a sign of life each second.
select count(set_config(name, '3s', false))
from pg_settings where name = 'wal_sender_timeout' and setting::bigint between 1 and 2999;
select current_setting('postrider.direct', true);
