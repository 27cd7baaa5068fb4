-- Purpose: rows of one partition that no cursor has read, although their bucket's may have passed them: their seq was
--          not drawn when they were written. $1 block to begin with, $2 block to end before, $3 rows at most, $4 to $7 as
--          law.sql tells.
-- Locks:   access share on the partition, on postrider.whole_range, parked and cursor.
-- Plan:    a TID range scan; each row's seq against the highest floor of a tick that its transaction came after, by
--          binary search (0.2 us a row). What breaks that law is looked up by its transaction, each of which is held
--          against the notes once.
-- Hazard:  complete for all ticks that were remembered (tick_remembered.sql): no range begins more than 128 above such
--          a floor, so whatever it left out lies at or below one. Not all that does was left out: what is known to
--          have been read is taken off. Rows that were written since the law was read are judged by less.
with suspect as materialized (
    select seq + 0 as seq, id, txid::xid8 as txid
    from only {table}
    where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid
        and (seq + 0 <= ($5::bigint[])[width_bucket(txid::xid8, $4::xid8[])]
            or txid::xid8 = any ($6::xid8[]) and seq + 0 <= ($7::bigint[])[array_position($6::xid8[], txid::xid8)])
), was_read as materialized (
    select from_snapshot, upto_snapshot, pg_snapshot_xmin(from_snapshot) as first, pg_snapshot_xmax(upto_snapshot) as next,
        coalesce(above, -9223372036854775808) as above
    from postrider.whole_range
    where (bucket = {bucket} or {bucket}::smallint = any(buckets))
        and leaf is null
        and pg_snapshot_xmax(upto_snapshot) > (select txid from suspect order by txid limit 1)
    union all
    -- What lies above the bound of the open window was read, or is about to be; it is noted when the window is closed.
    select window_since, upto_snapshot, pg_snapshot_xmin(window_since), pg_snapshot_xmax(upto_snapshot), window_bound
    from postrider.cursor
    where bucket = {bucket} and window_of = upto_next and window_bound is not null
), read_down as materialized (
    select wrote.txid, min(was_read.above) as above
    from (select distinct txid from suspect) as wrote
        join was_read on wrote.txid >= was_read.first and wrote.txid < was_read.next
    where pg_visible_in_snapshot(wrote.txid, was_read.upto_snapshot)
        and not pg_visible_in_snapshot(wrote.txid, was_read.from_snapshot)
    group by wrote.txid
)
select suspect.seq, suspect.id,
    -- As postrider.events has it.
    coalesce(case
        when suspect.seq <= saved.window_bound and saved.window_of = saved.upto_next then
            pg_visible_in_snapshot(suspect.txid, saved.window_since)
                or (suspect.seq <= saved."position" and saved."position" < saved.window_bound
                    and pg_visible_in_snapshot(suspect.txid, saved.upto_snapshot))
        else
            pg_visible_in_snapshot(suspect.txid, saved.from_snapshot)
                or ((suspect.seq <= saved."position"
                        or coalesce(saved."position" < saved.window_bound and saved.window_of = saved.upto_next, false))
                    and pg_visible_in_snapshot(suspect.txid, saved.upto_snapshot))
    end, false) as is_passed
from suspect
    join postrider.cursor as saved on saved.bucket = {bucket}
where not exists (
        select from postrider.parked where parked.seq = suspect.seq and parked.id = suspect.id)
    and not exists (
        select from read_down
        where read_down.txid = suspect.txid
            and (suspect.seq > read_down.above or read_down.above = -9223372036854775808))
    and not exists (
        select from postrider.whole_range as noted
        where noted.bucket = {bucket} and noted.seq = suspect.seq and noted.id = suspect.id
            and pg_visible_in_snapshot(suspect.txid, noted.upto_snapshot))
limit $3
