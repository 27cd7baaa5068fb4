-- Purpose: the schema of a consumer's inbox, and in it the list of migrations that were applied.
-- Locks:   none that an application holds; all objects are new.
-- Hazard:  the schema may be there already: an administrator made it for a role that may not.

do $migration$
begin
    if to_regnamespace('postrider_inbox') is null then
        create schema postrider_inbox;
    end if;
end
$migration$;

-- One row per applied file. The checksum tells an edited file from the applied one.
create table postrider_inbox.migration (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp(),
    applied_by text not null default session_user
);
