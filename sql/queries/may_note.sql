-- Purpose: whether the role may note which ranges were read, and take such notes away; and whether it may remember ticks.
-- Locks:   none.
-- Plan:    four key lookups in the catalog.
-- Hazard:  a role of an earlier version's sql/roles.sql may not; relaying goes on.
select has_table_privilege('postrider.whole_range', 'insert')
    and has_table_privilege('postrider.whole_range', 'delete') as may_note,
    has_table_privilege('postrider.past_tick', 'insert')
        and has_table_privilege('postrider.past_tick', 'delete') as may_remember
