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
        execute $postrider_file$
{file}
        $postrider_file$;
        insert into postrider.migration (version, name, checksum)
            values (step_version, step_name, step_checksum);
    end if;
    perform set_config('lock_timeout', former_lock_timeout, true);
    perform set_config('search_path', former_search_path, true);
end
$postrider_step$;
