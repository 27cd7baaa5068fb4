-- Purpose: what a publication is, as a text that changes whenever anybody changes it, and whether it
--          brings inserts, all of them, and nothing else. $1 the publication, $2 the tables, quoted,
--          $3 whether a partitioned table comes under its own name.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  a row filter or a list of columns takes events away silently; a publication that was taken
--          away and made again has skipped rows meanwhile, which its name does not tell.
select concat_ws(' ', publication.oid, publication.xmin, publication.pubinsert,
        publication.pubviaroot,
        (select string_agg(concat_ws(':', member.oid, member.xmin), ',' order by member.oid)
        from pg_publication_rel as member where member.prpubid = publication.oid)) as fingerprint,
    publication.pubinsert
        and publication.pubviaroot = $3
        and not publication.pubupdate
        and not publication.pubdelete
        and not exists (
            select from unnest($2::text[]) as wanted (name)
            where not exists (
                select from pg_publication_rel as member
                where member.prpubid = publication.oid
                    and member.prrelid = to_regclass(wanted.name)
                    and to_jsonb(member) ->> 'prqual' is null
                    and to_jsonb(member) ->> 'prattrs' is null)) as is_whole
from pg_publication as publication
where publication.pubname = $1
