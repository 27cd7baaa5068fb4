-- Purpose: removes what emit has noted of aggregates, when there is much of it and nobody locks it.
-- Locks:   access exclusive on postrider.emitting, nowait, for the truncation; where it is not had, row locks on
--          a thousand rows at a time, for one short transaction each.
-- Plan:    reads the table from its beginning until it has a thousand rows that nobody has locked.
-- Hazard:  one statement that commits in between, so that a relay which is stopped in the middle holds no lock.
--          A transaction that meets a removed row makes it again. Local: a commit that waits for a synchronous
--          standby would hold the locks meanwhile.
do $forget$
declare
    bytes_max constant bigint := 67108864;
    begun constant timestamptz := clock_timestamp();
    removed bigint;
begin
    if pg_relation_size('postrider.emitting') <= bytes_max then
        return;
    end if;
    perform set_config('synchronous_commit', 'local', true);
    if has_table_privilege('postrider.emitting', 'truncate') then
        begin
            lock table postrider.emitting in access exclusive mode nowait;
            truncate postrider.emitting;
            return;
        exception
            when lock_not_available then null;
        end;
    end if;
    loop
        perform set_config('synchronous_commit', 'local', true);
        delete from postrider.emitting
        where ctid = any(array(
            select ctid from postrider.emitting limit 1000 for update skip locked));
        get diagnostics removed = row_count;
        commit;
        exit when removed = 0 or clock_timestamp() > begun + interval '1 s';
    end loop;
end
$forget$
