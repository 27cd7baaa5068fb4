-- Purpose: whether the server takes writes, asked before a session's settings are made.
-- Locks:   none.
-- Plan:    none. One row: on or off.
-- Hazard:  after session.sql the answer is always off, on a primary that was set read-only too.
show transaction_read_only;
