-- Purpose: a part of migrate_step: fixes how the outbox is made, or compares with how it was made.
-- Locks:   row exclusive on postrider.outbox. Plan: one row.
-- Hazard:  values are filled in as text, quoted as literals, so that the printed SQL is complete.
    declare
        asked_schema constant text := {schema};
        asked_table constant text := {table};
        asked_buckets constant smallint := {buckets};
        asked_payload constant text := {payload};
        asked_seconds constant integer := {generation_seconds};
    begin
        if applied is null then
            if to_regclass(format('%I.%I', asked_schema, asked_table)) is not null then
                raise exception '%.% exists already, and postrider did not make it',
                    asked_schema, asked_table
                    using errcode = 'duplicate_table',
                        hint = 'Choose another name with --outbox, or rename what is there.';
            end if;
            insert into postrider.outbox
                (schema_name, table_name, buckets, payload, generation_seconds)
                values (asked_schema, asked_table, asked_buckets, asked_payload, asked_seconds);
        elsif not exists (
            select from postrider.outbox
            where (schema_name, table_name, buckets, payload, generation_seconds)
                = (asked_schema, asked_table, asked_buckets, asked_payload, asked_seconds)
        ) then
            raise exception 'the outbox of this database was made with other settings'
                using errcode = 'object_not_in_prerequisite_state',
                    hint = 'They are fixed when it is made; see `postrider migrate status`.';
        end if;
    end;
