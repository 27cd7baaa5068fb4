-- Purpose: what a publication is, as a text that changes whenever anybody changes it, and whether it
--          brings inserts, all of them, and nothing else. $1 the publication, $2 the tables, quoted,
--          $3 whether a partitioned table comes under its own name.
-- Locks:   none.
-- Plan:    a few catalog rows.
-- Hazard:  a row filter or a list of columns takes events away silently; a publication that was taken
--          away and made again has skipped rows meanwhile, which its name does not tell. A table that inherits
--          from another later is not in its publication. Unlogged and foreign parts are in no log.
select concat_ws(' ', publication.oid, publication.xmin, publication.pubinsert,
        publication.pubviaroot,
        (select string_agg(concat_ws(':', member.oid, member.xmin), ',' order by member.oid)
        from pg_publication_rel as member where member.prpubid = publication.oid)) as fingerprint,
    publication.pubinsert
        and publication.pubviaroot = $3
        and not publication.pubupdate
        and not publication.pubdelete
        and not exists (
            with recursive part as (
                select to_regclass(wanted.name)::oid as relid
                from unnest($2::text[]) as wanted (name)
                union
                select edge.inhrelid
                from part
                    join pg_inherits as edge on edge.inhparent = part.relid
                where $3
            )
            select from part
                left join pg_class as class on class.oid = part.relid
            where class.relpersistence is distinct from 't'
                and (class.relpersistence = 'u' or class.relkind = 'f'
                    or (class.relispartition is not true and not exists (
                        select from pg_publication_rel as member
                        where member.prpubid = publication.oid
                            and member.prrelid = part.relid
                            and to_jsonb(member) ->> 'prqual' is null
                            and to_jsonb(member) ->> 'prattrs' is null)))) as is_whole
from pg_publication as publication
where publication.pubname = $1
