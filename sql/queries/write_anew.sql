-- Purpose: what a person runs to have a row of the outbox written again, so that it is published; never run here.
-- Locks:   those of a delete and an insert.
-- Plan:    one row, by the index on seq.
-- Hazard:  if the row was published, it comes again under the same id.
with moved as (delete from {outbox} where seq = {seq} and id = '{id}' returning id, aggregatetype, aggregateid, type, payload, headers) insert into {outbox} (id, aggregatetype, aggregateid, type, payload, headers) select * from moved
