-- Purpose: how many buckets have a cursor in Kafka under the present term, and who has those that have none.
-- Locks:   access share on postrider.capture and postrider.cursor.
-- Plan:    at most 64 rows.
-- Hazard:  an owner may be dead; an instance of an earlier version never commits one.
select count(*) as buckets,
    count(*) filter (where cursor.delivery_term = capture.delivery_term) as committed,
    array_agg(distinct cursor.owner order by cursor.owner) filter (
        where cursor.delivery_term is distinct from capture.delivery_term
            and cursor.owner is not null) as behind
from postrider.cursor cross join postrider.capture
