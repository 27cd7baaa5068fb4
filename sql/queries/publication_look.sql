-- Purpose: what a publication is, as a text that changes whenever anybody changes it, and whether it brings inserts,
--          all of them (whatever else it brings is passed over); and the course of the tables: a text that changes
--          with what the log brings of them, null while it lacks a part; and by which members it names tables, and whether it
--          is of all. $1 the publication, $2 the tables, quoted, $3 whether a partitioned table comes under its own name.
-- Locks:   none.
-- Plan:    a few catalog rows per part.
-- Hazard:  a row filter or a list of columns takes events away silently; a publication that was taken
--          away and made again has skipped rows meanwhile, which its name does not tell. A table that inherits
--          from another later is not in its publication. Unlogged and foreign parts are in no log. What was so in
--          between leaves a trace: a part that was unlogged has another toast table (a truncation keeps it), one that
--          was filled aside was attached by another transaction, a filter that came and went was counted.
with recursive part as (
    select to_regclass(wanted.name)::oid as relid, null::text as attached_by
    from unnest($2::text[]) as wanted (name)
    union
    select edge.inhrelid, edge.xmin::text
    from part
        join pg_inherits as edge on edge.inhparent = part.relid
), member as (
    select member.oid, member.xmin, member.prpubid, member.prrelid,
        to_jsonb(member) ->> 'prqual' is null and to_jsonb(member) ->> 'prattrs' is null as is_whole
    from pg_publication_rel as member
    where member.prpubid = (select oid from pg_publication where pubname = $1)
)
select concat_ws(' ', publication.oid, publication.xmin, publication.pubinsert,
        publication.pubviaroot,
        (select string_agg(concat_ws(':', member.oid, member.xmin), ',' order by member.oid)
        from member)) as fingerprint,
    publication.pubinsert
        and publication.pubviaroot = $3
        and not exists (
            select from part
                left join pg_class as class on class.oid = part.relid
            where class.relpersistence is distinct from 't'
                and ($3 and (class.relpersistence = 'u' or class.relkind = 'f')
                    or (class.relispartition is not true
                        and not exists (select from member where member.prrelid = part.relid))
                    or exists (select from member where member.prrelid = part.relid and not member.is_whole)))
        as is_whole,
    array(select member.oid from member) as members, publication.puballtables as is_of_all,
    (select case when bool_and(class.relkind = 'p' or (class.relkind = 'r' and class.relpersistence = 'p')) then
            concat_ws(' ',
                md5(string_agg(concat_ws(':', part.relid, part.attached_by, class.reltoastrelid), ' '
                    order by part.relid, part.attached_by)),
                pg_stat_get_tuples_inserted('pg_catalog.pg_publication_rel'::regclass),
                pg_stat_get_tuples_deleted('pg_catalog.pg_publication_rel'::regclass))
        end
    from part
        join pg_class as class on class.oid = part.relid) as course
from pg_publication as publication
where publication.pubname = $1
