-- Purpose: applies one file of sql/migrations and notes it in postrider.migration, both or neither,
--          once: one statement, so that `postrider migrate up`, psql and other tools run the same.
-- Locks:   postrider.migration against changes, to the end of the transaction: one migration at a time per
--          database. It is waited for a minute; what the file itself locks, for seconds only, because an
--          application's statements would queue up behind.
-- Plan:    none.
-- Hazard:  the file stands here between dollar quotes, and no value that is filled in may hold a
--          dollar sign. A transaction with a fixed snapshot that waited does not see what the other
--          one did: then this fails on what is there, and changes nothing.
do $postrider_step$
declare
    step_version constant integer := {version};
    step_name constant text := {name};
    step_checksum constant text := {checksum};
    former_search_path constant text := pg_catalog.current_setting('search_path');
    former_lock_timeout constant text := pg_catalog.current_setting('lock_timeout');
    title text;
    applied text;
    earlier bigint := 0;
    stranger record;
    there_before oid[];
    is_first boolean;
    given record;
begin
    perform pg_catalog.set_config('search_path', 'pg_catalog', true);
    perform set_config('lock_timeout', '60s', true);
    for stranger in
{strangers}
    loop
        raise exception '% belongs to %, who could change it under the relay', stranger.thing, stranger.owner
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Give it to a role of yours (alter ... owner to), or drop it, or run this as that role.';
    end loop;
    if to_regclass('postrider.migration') is not null then
        lock table postrider.migration in share row exclusive mode;
    end if;
    perform set_config('lock_timeout', '5s', true);
    title := lpad(step_version::text, 4, '0') || ' ' || step_name;
    if to_regclass('postrider.migration') is not null then
        select checksum into applied from postrider.migration where version = step_version;
        select count(*) into earlier from postrider.migration where version < step_version;
    end if;
    if applied <> step_checksum then
        raise exception 'migration % was applied with another text', title
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Use the version of postrider that applied it.';
    elsif earlier <> step_version then
        raise exception 'migration % needs those before it', title
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Mend what made them fail, and run all of them again.';
    end if;
{outbox}
    if applied is null then
        is_first := to_regnamespace('postrider') is null;
        there_before := array(select oid from pg_class where relnamespace = to_regnamespace('postrider'));
        execute $postrider_file$
{file}
        $postrider_file$;
        -- Default privileges have given rights on what is new here to whom they name. What was there before is left
        -- alone: people may have granted it.
        for given in
            select case when class.relkind = 'S' then 'sequence' else 'table' end as kind,
                class.oid::regclass::text as place, privilege.grantee,
                string_agg(privilege.privilege_type, ', ') as privileges
            from pg_class as class
                cross join lateral aclexplode(class.relacl) as privilege
            where class.relnamespace = 'postrider'::regnamespace
                and class.relkind in ('r', 'v', 'p', 'm', 'S')
                and class.oid <> all (there_before)
                and privilege.grantee <> class.relowner
                and exists (
                    select
                    from pg_default_acl as preset
                        cross join lateral aclexplode(preset.defaclacl) as by_default
                    where preset.defaclrole = class.relowner
                        and preset.defaclnamespace in (0, class.relnamespace)
                        and preset.defaclobjtype = case when class.relkind = 'S' then 'S' else 'r' end
                        and by_default.grantee = privilege.grantee
                        and by_default.privilege_type = privilege.privilege_type)
                -- What this file itself has granted: how events are captured, everybody may read.
                and not (privilege.grantee = 0 and class.relname = 'capture'
                    and privilege.privilege_type = 'SELECT')
            group by 1, 2, 3
            union all
            select 'schema', 'postrider', privilege.grantee, string_agg(privilege.privilege_type, ', ')
            from pg_namespace as namespace
                cross join lateral aclexplode(namespace.nspacl) as privilege
            where is_first and namespace.nspname = 'postrider'
                and privilege.grantee <> namespace.nspowner
            group by privilege.grantee
        loop
            execute format('revoke %s on %s %s from %s', given.privileges, given.kind, given.place,
                case when given.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(given.grantee)) end);
        end loop;
        insert into postrider.migration (version, name, checksum)
            values (step_version, step_name, step_checksum);
        -- Relays of the version before read it, when they start on what this one has made.
        comment on table postrider.migration is {floor};
    end if;
    perform set_config('lock_timeout', former_lock_timeout, true);
    perform set_config('search_path', former_search_path, true);
end
$postrider_step$;
