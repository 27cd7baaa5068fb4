-- Purpose: under which name a table lies now that was adopted under another, as the publication has it.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  where several were renamed it is not known which is which: none is named then. Inheriting tables are in the
--          publication, too.
select min(namespace.nspname::text) as schema_name, min(class.relname::text) as table_name
from pg_publication as publication
    join pg_publication_rel as member on member.prpubid = publication.oid
    join pg_class as class on class.oid = member.prrelid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where publication.pubname = 'postrider_adopted'
    and not exists (select from pg_inherits as edge where edge.inhrelid = class.oid)
    and not exists (
        select from postrider.adopted as known
        where known.schema_name = namespace.nspname and known.table_name = class.relname)
having count(*) = 1
