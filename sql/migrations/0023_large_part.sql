-- Purpose: what is too large to be read gathers in a table that is there: who reads makes none, as databases may forbid.
-- Locks:   none that anybody else holds.
-- Hazard:  whoever takes up an event sees its own parts alone, and takes them away before it commits. What they took of
--          the disk is free for the next ones once they are cleaned up, which is asked for at once.
create unlogged table postrider.large_part (
    part integer not null,
    value integer not null,
    content bytea not null
) with (
    autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 0, toast.autovacuum_vacuum_scale_factor = 0
);
alter table postrider.large_part alter column content set storage external;
comment on table postrider.large_part is
    'Parts of an event that is too large to be read, while it is taken up; empty for everybody else.';
comment on column postrider.large_part.part is 'its number among the parts of the event, from 0';
comment on column postrider.large_part.value is 'of which of a row''s values it is a part; 0 of a message';
comment on column postrider.large_part.content is 'its bytes, as they came';

-- Whoever may park events may take them up.
do $grant$
declare
    relay oid;
begin
    for relay in
        select distinct granted.grantee
        from pg_catalog.pg_class as parked, pg_catalog.aclexplode(parked.relacl) as granted
        where parked.oid = 'postrider.parked'::regclass and granted.privilege_type = 'INSERT'
            and granted.grantee not in (0, parked.relowner)
    loop
        execute format('grant select, insert, delete on postrider.large_part to %s', relay::regrole);
    end loop;
end
$grant$;
