-- Purpose: one page of a cursor group: the rows that $upto sees and $from does not, in the order of seq.
--          $1 the lowest seq to read, $2 through, $3 from, $4 upto, $5 rows at most, and those that share the last one's
--          seq. A row that takes more than {event_bytes_max} bytes ends it with an error.
-- Locks:   access share on the cursor group's partitions, for as long as the page is read.
-- Plan:    merge append over one index scan on (seq) per partition, without a sort; the conditions stand
--          outside the union because the planner merges ordered arms only when they have none. Sizes are
--          told without reading values, and asked last; but of json and jsonb only where the stored size
--          leaves no doubt (src/capture/table/claim.rs). Most rows are small in each column, which is known sooner
--          than their sum.
-- Hazard:  a lower bound on seq alone loses rows, a cut by transaction id reorders them. The bound
--          comes from the ticks (src/order/tick.rs); the two snapshots decide what belongs to the page. A cut
--          between rows of one seq would lose those behind it. Rows of a partition that was detached are not
--          found by its bucket's name: the page is refused then.
select seq, id, aggregatetype, aggregateid, type, payload, headers, created_at
from ({bucket_arms}) as cohort
where (select postrider.has_its_partitions(array[{bucket_tables}]::regclass[]))
    and seq >= $1
    and seq <= $2
    and not pg_visible_in_snapshot(txid, $3)
    and pg_visible_in_snapshot(txid, $4)
    and (({is_small})
        or octet_length(aggregatetype) + octet_length(aggregateid) + octet_length(type)
            + coalesce({payload_bytes}, 0) + coalesce({headers_bytes}, 0) <= {event_bytes_max}
        or postrider.refuse_large_row(seq))
order by seq
fetch first $5 rows with ties
