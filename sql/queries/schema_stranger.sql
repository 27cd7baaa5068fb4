-- Purpose: a thing in the schema of the control tables, asked for before the first migration: it is none of postrider's.
-- Locks:   none.
-- Plan:    reads the catalogs' rows of the schema.
-- Hazard:  checks and grants go by all that is in the schema: what an application keeps there would be taken for ours.
select thing
from (
    select relname::text
    from pg_class
    where relnamespace = to_regnamespace('postrider') and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    union all
    select proname from pg_proc where pronamespace = to_regnamespace('postrider')
    union all
    select typname from pg_type where typnamespace = to_regnamespace('postrider') and typtype in ('d', 'e')
) as things (thing)
order by thing
limit 1
