-- Purpose: what becomes of a slot when a standby is promoted. $1 its name.
-- Locks:   none beyond the slots' own.
-- Plan:    one row, or none.
-- Hazard:  before PostgreSQL 17 there are neither the columns nor the setting: nulls then. Who streams is
--          told to everybody, under which name only to members of pg_read_all_stats.
select (to_jsonb(slot) ->> 'failover')::boolean as follows,
    coalesce((to_jsonb(slot) ->> 'synced')::boolean, false) as has_followed,
    to_jsonb(slot) ->> 'invalidation_reason' as invalidation_reason,
    nullif(current_setting('synchronized_standby_slots', true), '') as guards,
    (
        select string_agg(guard.name, ', ')
        from (
            select trim(both ' "' from name) as name
            from string_to_table(current_setting('synchronized_standby_slots', true), ',') as name
        ) as guard
            left join pg_replication_slots as named on named.slot_name = guard.name
        where named.active is not true and guard.name <> ''
    ) as absent_guards,
    exists (
        select
        from pg_stat_replication as sender
        where coalesce(sender.application_name, '') not in ('pg_basebackup', 'pg_receivewal')
            and not exists (
                select
                from pg_replication_slots as reader
                where reader.slot_type = 'logical' and reader.active_pid = sender.pid
            )
    ) as has_standby
from pg_replication_slots as slot
where slot_name = $1
