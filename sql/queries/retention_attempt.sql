-- Purpose: one attempt to empty a partition: truncates it if its generation is past, the saved cursor has
--          passed all its rows, and its newest row is older than the replay window. Says what came
--          of it (the words of src/control/retention.rs). {steps} is 'look' alone, which only says whether it is due,
--          or 'look', 'act', at the end of the proof that all rows are read (src/control/retention/proof.rs).
-- Locks:   access exclusive on the partition, nowait, for the check, the truncation and its commit; access
--          share on the partition and on postrider.cursor for the look before it.
-- Plan:    the newest row from the end of the index on seq; rows not passed by the same index above
--          the floor; rows whose seq nobody drew among the partition's last blocks (below_arm.sql), 1024 at most: a session
--          may go on in a block of long ago, and the proof has seen the rest. The look without the lock comes first: it
--          finds most leaves not due, and warms what the check under the lock reads again.
-- Hazard:  the check under the lock must be a statement of its own in READ COMMITTED: its snapshot
--          is then younger than the lock, and sees every row that was written before. All of it is
--          one message, so that a relay which is stopped in the middle holds no lock. A commit that
--          waits for a synchronous standby would hold the lock meanwhile: therefore local. It ends the
--          transaction that its sender has begun.
set local lock_timeout = '50ms';
set local statement_timeout = '1s';
set local synchronous_commit = local;
do $attempt$
declare
    leaf constant regclass := {leaf}::oid;
    generation_seconds constant integer := {generation_seconds};
    -- The partition that the next moment fills is as good as current: no writer shall meet the lock.
    margin constant interval := least(1.0, generation_seconds / 4.0) * interval '1 s';
    begun constant timestamptz := clock_timestamp();
    -- Until when the partition was filled, one or two generations ago: a row that is said to be of later is not.
    filled_until constant timestamptz := to_timestamp((date_part('epoch', begun)::bigint / generation_seconds
        - (date_part('epoch', begun)::bigint / generation_seconds - {generation} + 2) % 3)
        * generation_seconds::float8);
    is_ahead boolean;
    -- The identity's sequence.
    sequence constant regclass := (
        select objid::regclass
        from pg_depend
        where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass
            and refobjid = pg_partition_root(leaf) and deptype = 'i'
            and (select relkind = 'S' from pg_class where oid = objid));
    -- The cursor as it was saved, if it is still ours and of this history. An unpassed row lies above
    -- floor: src/control/retention.rs says why a transaction that is still open does not count. Who may not read
    -- the sequence does not know whether it was set back.
    read_cursor constant text := $cursor$
        select from_snapshot, upto_snapshot, "position",
            -- What lies below it and is not seen by this was not looked for yet (src/order/cursor.rs).
            coalesce(case when window_of = upto_next then window_since end, upto_snapshot) as looked,
            case when window_of = upto_next then window_bound end as bound,
            case when has_sequence_privilege($1, 'select, usage') then {floor}
                else -9223372036854775808
            end as floor
        from postrider.cursor as saved
        where bucket = {bucket} and epoch = {epoch}
            and system_identifier = (select system_identifier from pg_control_system())
            and timeline =
                ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
        $cursor$;
    read_leaf constant text := format($leaf$
        select
            (select created_at from only %1$s order by seq desc limit 1) as newest,
            exists (
                select
                from only %1$s
                where seq >= $1
                    and not pg_visible_in_snapshot(txid, $2)
                    and not (seq <= $3 and pg_visible_in_snapshot(txid, $4)))
                or exists (
                    select
                    from only %1$s
                    where ctid >= coalesce((
                            select format('(%%s,0)', greatest(
                                    (min(ctid)::text::point)[0]::bigint - 256,
                                    pg_relation_size({leaf}::oid) / current_setting('block_size')::bigint - 1024,
                                    0))::tid
                            from (select ctid from only %1$s order by seq desc limit 16) as last
                        ), '(0,0)')
                        and (seq <= coalesce($6, $1)) is true
                        and not pg_visible_in_snapshot(txid, $5)) as waits,
            exists (
                select
                from postrider.replay_bucket as part
                where part.bucket = {bucket} and part.ended_at is null
                    and exists (select from only %1$s where seq between part.next_seq and part.last_seq)
            ) as is_replayed
        $leaf$, leaf);
    saved record;
    seen record;
    step text;
    outcome text := 'empty';
begin
    if {generation} in ((date_part('epoch', begun)::bigint / generation_seconds) % 3,
            (date_part('epoch', begun + margin)::bigint / generation_seconds) % 3) then
        outcome := 'current';
    elsif pg_relation_size(leaf) > 0
            and not (has_table_privilege(leaf, 'truncate')
                and has_table_privilege('postrider.replay_bucket', 'select')) then
        outcome := 'refused';
    elsif pg_relation_size(leaf) > 0 then
        foreach step in array array[{steps}] loop
            if step = 'act' then
                -- Shards hold the leaf while they read a page.
                for attempt in 1 .. {attempts} loop
                    begin
                        execute format('lock table only %s in access exclusive mode nowait', leaf);
                        exit;
                    exception
                        when lock_not_available then
                            if attempt = {attempts} then
                                raise;
                            end if;
                            perform pg_sleep(0.01 * (1 + random()));
                    end;
                end loop;
            end if;
            execute read_cursor into saved using sequence;
            if saved is null then
                outcome := 'taken';
                exit;
            end if;
            execute read_leaf into seen
                using saved.floor, saved.from_snapshot, saved."position", saved.upto_snapshot,
                    saved.looked, saved.bound;
            if seen.waits then
                outcome := 'waiting';
                exit;
            end if;
            -- Whoever asks for a replay reads the partition first, and keeps that lock until it is written down.
            if seen.is_replayed then
                outcome := 'replayed';
                exit;
            end if;
            -- A time that is still to come, as of a clock that goes wrong, would keep the partition for ever.
            is_ahead := seen.newest > clock_timestamp();
            if least(seen.newest, case when is_ahead then filled_until end)
                    > clock_timestamp() - interval '{replay_window_micros} microseconds' then
                outcome := 'young';
                exit;
            elsif step = 'act' then
                execute format('truncate only %s', leaf);
                if has_table_privilege('postrider.whole_range', 'insert')
                        and has_table_privilege('postrider.whole_range', 'delete') then
                    -- Rows to come are of transactions that this snapshot does not see.
                    delete from postrider.whole_range where whole_range.leaf = {leaf}::oid;
                    insert into postrider.whole_range (bucket, leaf, from_snapshot, upto_snapshot)
                    values ({bucket}, {leaf}::oid, '3:3:', pg_current_snapshot());
                end if;
                outcome := 'truncated';
                if is_ahead then
                    outcome := 'ahead';
                end if;
            elsif clock_timestamp() - begun > interval '100 ms' then
                -- It would take as long again under the lock. What was read now is warm next time.
                outcome := 'slow';
                exit;
            else
                outcome := 'due';
            end if;
        end loop;
    end if;
    perform set_config('postrider.retention', outcome, false);
exception
    when lock_not_available then perform set_config('postrider.retention', 'locked', false);
    when query_canceled then perform set_config('postrider.retention', 'slow', false);
end
$attempt$;
commit;
select current_setting('postrider.retention');
