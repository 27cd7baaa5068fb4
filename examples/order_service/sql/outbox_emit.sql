-- Purpose: an event, in the transaction that changes the rows it tells of. $1 aggregatetype, $2 aggregateid,
--          $3 type, $4 payload as JSON text.
-- Hazard:  it comes after the statement that has locked the aggregate's row: then events of one aggregate get
--          their numbers in the order of the changes.
insert into outbox (aggregatetype, aggregateid, type, payload)
values ($1, $2, $3, $4::text::json)
