-- Purpose: how many buckets are delivered as the present term says, and who has those that are not. Exactly once:
--          they have a cursor in Kafka.
-- Locks:   access share on postrider.capture and postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  an owner may be dead; an instance of an earlier version never notes a term. Before the first switch
--          nobody does.
select count(*) as buckets,
    count(*) filter (where coalesce(cursor.delivery_term, 0) = capture.delivery_term) as followed,
    array_agg(distinct cursor.owner order by cursor.owner) filter (
        where coalesce(cursor.delivery_term, 0) <> capture.delivery_term
            and cursor.owner is not null) as behind
from postrider.cursor cross join postrider.capture
