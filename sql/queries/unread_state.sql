-- Purpose: how many blocks each partition has, and how many rows were ever written into it as far as that is
--          counted. $1 partitions.
-- Locks:   access share on the partitions, for a moment.
-- Plan:    a size and a counter for each.
-- Hazard:  a session reports what it has written up to a second later, and a crash of the server resets the counters.
--          They only say when it is worth a look.
select leaf, pg_relation_size(leaf::regclass) / current_setting('block_size')::bigint as blocks,
    pg_stat_get_tuples_inserted(leaf) + pg_stat_get_tuples_updated(leaf) as written
from unnest($1::oid[]) as leaf
