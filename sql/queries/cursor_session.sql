-- Purpose: makes the session that saves cursors commit without waiting for the disk.
-- Locks:   none. Plan: none.
-- Hazard:  the save must never be the fence of a tick; the ticker has a session of its own.
set synchronous_commit = off;
