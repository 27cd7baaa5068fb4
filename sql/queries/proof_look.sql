-- Purpose: how many blocks a partition has, and whether anybody waits for a lock on it. $1 partition.
-- Locks:   those of the lock manager's own tables, for a moment.
-- Plan:    one look at pg_locks.
-- Hazard:  whoever waits is held up by the proof, which then has to end.
select pg_relation_size($1::oid::regclass) / current_setting('block_size')::bigint as blocks,
    exists (
        select from pg_locks
        where locktype = 'relation' and relation = $1::oid and not granted
            and database = (select oid from pg_database where datname = current_database())) as is_awaited
