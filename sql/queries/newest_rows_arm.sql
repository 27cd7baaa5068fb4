-- Purpose: one bucket's part of newest_rows.sql: its newest row.
-- Locks:   as newest_rows.sql.
-- Plan:    merge append over the partitions' indexes on seq, backwards; one row.
-- Hazard:  the text joins others by union all.
(select seq, txid::xid8 as txid from {bucket_table} order by seq desc limit 1)
