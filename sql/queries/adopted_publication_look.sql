-- Purpose: what the publication of the adopted tables is, as a text that changes whenever anybody changes
--          it, and which tables it brings whole. $1 the publication.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  as in publication_look.sql.
select concat_ws(' ', publication.oid, publication.xmin, publication.pubinsert,
        publication.pubviaroot,
        (select string_agg(concat_ws(':', member.oid, member.xmin), ',' order by member.oid)
        from pg_publication_rel as member where member.prpubid = publication.oid)) as fingerprint,
    publication.pubinsert and publication.pubviaroot
        and not publication.pubupdate and not publication.pubdelete as is_whole,
    array(
        select format('%I.%I', schema.nspname, class.relname)
        from pg_publication_rel as member
            join pg_class as class on class.oid = member.prrelid
            join pg_namespace as schema on schema.oid = class.relnamespace
        where member.prpubid = publication.oid
            and to_jsonb(member) ->> 'prqual' is null
            and to_jsonb(member) ->> 'prattrs' is null) as tables
from pg_publication as publication
where publication.pubname = $1
