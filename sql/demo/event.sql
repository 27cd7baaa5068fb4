-- Purpose: what an application writes: one event, in the transaction of its business rows.
-- Locks:   the new row.   Plan: one insert.
-- Hazard:  none; id is given only so that the demo can check what arrives.
insert into public.outbox (id, aggregatetype, aggregateid, type, payload)
values ($1, $2, $3, $4, $5::text::json)
