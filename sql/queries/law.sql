-- Purpose: by what retained rows are judged: ids of ticks, and for each up to which seq no row of a later transaction can
--          lie; then the same of transactions that were open and had drawn nothing.
-- Locks:   access share on postrider.past_tick.
-- Plan:    reads it from end to end: some ten thousand rows (law_forget.sql).
-- Hazard:  between two ticks of which the sequence was set back all was read: there nothing is judged. Nor where the log
--          was read, which brings everything. 128 is what tick_remembered.sql leaves out.
with tick as materialized (
    select next, floor, storage,
        (storage <> lead(storage) over by_next
            or (began <> lead(began) over by_next and lead(floor) over by_next < floor)
            or log_begins) is true as is_last
    from postrider.past_tick
    window by_next as (order by next)
), law as materialized (
    select array_agg(next order by next) as nexts, array_agg(upto order by next) as uptos
    from (
        select next,
            case when is_last then -9223372036854775808
                else greatest(max(floor) over (partition by lineage order by next), -9223372036854775680) - 128
            end as upto
        from (
            select next, floor, is_last,
                count(*) filter (where is_last)
                    over (order by next rows between unbounded preceding and 1 preceding) as lineage
            from tick
        ) as numbered
    ) as judged
), undrawn as materialized (
    select xid, greatest(max(floor), -9223372036854775680) - 128 as upto
    from postrider.past_tick
        cross join unnest(past_tick.undrawn) as xid
    where past_tick.undrawn is not null
        and next > coalesce((select next from tick where is_last order by next desc limit 1), '0'::xid8)
    group by xid
)
select coalesce(nexts, '{}') as nexts, coalesce(uptos, '{}') as uptos,
    coalesce((select array_agg(xid order by xid) from undrawn), '{}') as undrawn,
    coalesce((select array_agg(upto order by xid) from undrawn), '{}') as undrawn_uptos
from law
