-- Purpose: marks the rows of an adopted table that are published, for whoever publishes the others.
-- Locks:   row locks on what is marked; writers of new rows are not in its way.
-- Plan:    reads the table once.
-- Hazard:  only while nobody reads the log: what is published meanwhile would not be marked.
update {table} as adopted_row
set {mark}
where ({pending}) and not ({condition})
