-- Purpose: above which seq all rows lie that a saved cursor has not passed and that can be seen now: an
--          expression over `saved`, a row of postrider.cursor.
-- Locks:   access share on the outbox's sequence, for a moment.
-- Plan:    key lookups in the catalog, and a few ids for what was open at the cursor's tick.
-- Hazard:  rows of the range at hand lie above position, later ones above the latest tick's floor or, if their
--          transaction was open then, above its carry floor (src/order/tick.rs). A transaction that is still open
--          shows no row: one that stays open for hours must not send the look that far back. Where the
--          sequence was set back since the tick, rows lie anywhere; a little below, as setval leaves no trace.
coalesce((
    select
        case
            when saved.upto_sequence is distinct from pg_relation_filenode(law.sequence)::bigint
                or has_sequence_privilege(law.sequence, 'select, usage')
                    and coalesce(pg_sequence_last_value(law.sequence), 0) < saved.upto_floor
                then -9223372036854775808
            else greatest(-9223372036854775552, least(saved."position", saved.upto_floor, (
                select min(saved.carry[open + 2])
                from generate_series(1, cardinality(saved.carry), 3) as open
                where exists (
                    select
                    from generate_series(saved.carry[open],
                        least(saved.carry[open + 1],
                            pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)) as xid
                    where pg_visible_in_snapshot(xid::text::xid8, pg_current_snapshot())))
            )) - 256
        end
    from (
        select objid::regclass as sequence
        from postrider.outbox
            join pg_depend on classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass
                and refobjid = to_regclass(format('%I.%I', schema_name, table_name)) and deptype = 'i'
        where (select relkind = 'S' from pg_class where oid = objid)
    ) as law
), -9223372036854775808)
