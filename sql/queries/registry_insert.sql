-- Purpose: notes a migration as applied; runs in the migration's own transaction.
-- Locks:   row exclusive on the table. Plan: one row.
-- Hazard:  values are filled in as text, quoted as literals, so that the printed SQL is complete.
insert into postrider.migration (version, name, checksum)
values ({version}, {name}, {checksum});
