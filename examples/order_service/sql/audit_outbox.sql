-- Purpose: all events in the order in which they were written, for the audit. The generations of this outbox are so
--          long that none of its rows is removed while the example runs.
select id, aggregatetype, aggregateid, type from outbox order by seq
