-- Purpose: a condition: the transaction of a row's {xmin} is known to be published: {near} a transaction id from
--          which the whole id is found, {passed} the snapshot of what is published, {proven} ids of transactions
--          of which that is known as well.
-- Locks:   none of its own.
-- Plan:    a filter; the snapshot's list is read once.
-- Hazard:  a row keeps the lower half of a transaction id. The upper half is found right for rows whose
--          last change is less than 2^32 transactions ago; ids below 3 are older than all others.
--          A row that was written inside a savepoint bears the id of a subtransaction, which no snapshot lists.
--          Its transaction has a lower id. So an id that is not listed counts as published only below
--          all that are listed and have committed since, or if it is known to be a transaction's own. What
--          is left may be published twice.
(
    select written.id < 3
        or (pg_visible_in_snapshot(written.id::text::xid8, {passed}::pg_snapshot)
            and (written.id = any({proven}::bigint[])
                or written.id < (
                    select coalesce(min(listed::text::bigint), 9223372036854775807)
                    from pg_snapshot_xip({passed}::pg_snapshot) as listed
                    where case
                        when pg_visible_in_snapshot(listed, pg_current_snapshot())
                        then pg_xact_status(listed) is distinct from 'aborted'
                        else false
                    end
                )))
    from (select case when {xmin}::text::bigint < 3 then 1 else
        {near}::bigint - (({near}::bigint - {xmin}::text::bigint) & 4294967295) end as id) as written
)
