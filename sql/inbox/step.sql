-- Purpose: applies one file of sql/inbox and notes it in postrider_inbox.migration, both or neither, once: one
--          statement, so that `postrider migrate inbox up`, psql and other tools run the same.
-- Locks:   postrider_inbox.migration against changes, to the end of the transaction: one migration at a time.
-- Plan:    none.
-- Hazard:  the file stands here between dollar quotes, and no value that is filled in may hold a dollar sign.
do $postrider_step$
declare
    step_version constant integer := {version};
    step_name constant text := {name};
    step_checksum constant text := {checksum};
    former_search_path constant text := pg_catalog.current_setting('search_path');
    title text;
    stranger text;
    applied text;
    earlier bigint := 0;
begin
    perform pg_catalog.set_config('search_path', 'pg_catalog', true);
    title := lpad(step_version::text, 4, '0') || ' ' || step_name;
    select pg_get_userbyid(nspowner) into stranger
    from pg_namespace
    where nspname = 'postrider_inbox' and not pg_has_role(nspowner, 'usage');
    if stranger is not null then
        raise exception 'schema postrider_inbox belongs to %, who could change the inbox', stranger
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Give it to a role of yours (alter schema ... owner to), or drop it, or run this as that role.';
    end if;
    if to_regclass('postrider_inbox.migration') is not null then
        lock table postrider_inbox.migration in share row exclusive mode;
        select checksum into applied from postrider_inbox.migration where version = step_version;
        select count(*) into earlier from postrider_inbox.migration where version < step_version;
    end if;
    if applied <> step_checksum then
        raise exception 'migration % of the inbox was applied with another text', title
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Use the version of postrider that applied it.';
    elsif earlier <> step_version then
        raise exception 'migration % of the inbox needs those before it', title
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Mend what made them fail, and run all of them again.';
    end if;
    if applied is null then
        execute $postrider_file$
{file}
        $postrider_file$;
        insert into postrider_inbox.migration (version, name, checksum)
            values (step_version, step_name, step_checksum);
    end if;
    perform set_config('search_path', former_search_path, true);
end
$postrider_step$;
