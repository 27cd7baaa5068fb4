-- Purpose: has what this session changed counted at once: the counts belong to the course of the tables
--          (publication_look.sql), and would else change by themselves some seconds later.
-- Locks:   none. Plan: one row.
-- Hazard:  since PostgreSQL 15; before, the outbox's table is read once more than it has to be.
select pg_stat_force_next_flush()
