-- Purpose: whether a tick is due, without assigning a transaction id.
-- Locks:   access share on the sequence.
-- Plan:    one row.
-- Hazard:  what it misses the next probe finds; drawn.sql says why it reads the sequence in this way, and
--          what null means.
select
    case when has_sequence_privilege({sequence}::regclass, 'select, usage')
        then coalesce(pg_sequence_last_value({sequence}::regclass), 0)
    end as drawn,
    pg_relation_filenode({sequence}::regclass)::bigint as storage,
    pg_current_snapshot() as snapshot
