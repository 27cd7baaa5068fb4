-- Purpose: the newest row of each bucket: whether the sequence is behind its rows, and whether a row has the
--          transaction id of another cluster. Run before the sequence is read.
-- Locks:   access share on the partitions, for a moment.
-- Plan:    the end of the index on seq of each partition; with the settings of leaf_session.sql.
-- Hazard:  a row that this statement sees was written by a transaction that had ended: an id at or above
--          the snapshot's xmax is not of this cluster. It is a sample: rows below the newest are not read.
select max(seq) as highest,
    -- Its max: PostgreSQL 14 has none for xid8.
    (array_agg(txid order by txid desc) filter (where txid >= pg_snapshot_xmax(pg_current_snapshot())))[1]
        as foreign_txid
from ({bucket_arms}) as newest
