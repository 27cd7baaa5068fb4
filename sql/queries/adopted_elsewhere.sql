-- Purpose: whether the control tables of another schema have adopted a table: by which publication they read it.
--          $1 its qualified name, quoted, $2 our own publication of adopted tables, $3 how all such are called.
-- Locks:   access share on catalogs.
-- Plan:    a few catalog rows.
-- Hazard:  the publication is made with the adoption, and everybody may see it; the control tables only their roles.
select publication.pubname::text as publication
from pg_publication as publication
    join pg_publication_rel as member on member.prpubid = publication.oid
where member.prrelid = to_regclass($1)
    and starts_with(publication.pubname::text, $3::text)
    and publication.pubname::text <> $2::text
order by publication.pubname
limit 1
