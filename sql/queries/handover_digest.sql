-- Purpose: one number of all rows of {outbox}, whichever order they are read in: it stands for their seq and id.
-- Locks:   access share on the outbox.
-- Plan:    part of a statement that reads every partition from end to end; some microseconds a row.
-- Hazard:  the same on every version and machine, as PostgreSQL's own hashes need not be. It is no proof against whoever
--          makes rows for it.
coalesce(sum(('x' || substr(encode(sha256(int8send(seq) || uuid_send(id)), 'hex'), 1, 16))::bit(64)::bigint), 0)
