-- Purpose: one bucket's arm of claim.sql and claim_carefully.sql.
-- Locks:   as claim.sql. Plan: as claim.sql.
-- Hazard:  all generations are read, always: a REPEATABLE READ writer may fill an old one.
select {bucket}::smallint as bucket, txid, seq, id, aggregatetype, aggregateid, type, payload, headers,
    created_at
from {bucket_table}
