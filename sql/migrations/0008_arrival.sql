-- Purpose: the order of parked events: where the log brought them, and in which order they were parked.
-- Locks:   exclusive on postrider.parked, which no application reads or writes, while it is rewritten.
-- Hazard:  what was parked before has no arrival: whether the log's events come after it is told by seq.
--          A relay of an earlier version that still runs goes on in the order of seq.

alter table postrider.parked
    add column turn bigint,
    add column commit_lsn pg_lsn,
    add column commit_index bigint,
    add constraint parked_arrival check (
        (commit_lsn is null) = (commit_index is null)
        and (commit_index is null or commit_index between 0 and 4294967295));

update postrider.parked
set turn = numbered.turn
from (select seq, row_number() over (order by seq) as turn from postrider.parked) as numbered
where numbered.seq = parked.seq;

-- Drawn when a row is inserted, so an identity: it needs no right but to insert.
alter table postrider.parked
    alter column turn set not null,
    alter column turn add generated always as identity;
select setval(
    pg_get_serial_sequence('postrider.parked', 'turn'),
    (select coalesce(max(turn), 0) + 1 from postrider.parked),
    false);

-- By hash, as an aggregateid may be longer than a btree takes.
drop index postrider.parked_aggregate;
create index parked_aggregate on postrider.parked (bucket, hashtextextended(aggregateid, 0), turn);

comment on column postrider.parked.turn is 'the order in which events were parked, and are tried again';
comment on column postrider.parked.commit_lsn is
    'the commit of the event''s transaction, if the log brought it';
comment on column postrider.parked.commit_index is
    'how many events of the transaction come before it in the log';
