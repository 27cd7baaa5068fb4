-- Purpose: saves how far buckets are published, many in one statement.
--          $1 buckets, $2 epochs, $3 from, $4 upto, $5 next, $6 floor, $7 ceiling, $8 carry as text,
--          $9 position; one element per bucket. $10 system identifier, $11 timeline; then again one
--          element per bucket: $12 the sequence's storage, $13 the first tick of its lineage, $14 the
--          snapshot behind which the open window begins and $15 its bound, null where none is open. {noted} is
--          window_note.sql or nothing.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
-- Plan:    one key lookup per bucket; the update is heap-only (no indexed column changes).
-- Hazard:  a bucket that does not come back belongs to another instance: stop publishing it.
--          Committed with synchronous_commit = off: losing a save repeats events, never loses one.
{noted}
update postrider.cursor as saved
set from_snapshot = given.from_snapshot,
    upto_snapshot = given.upto_snapshot,
    upto_next = given.upto_next,
    upto_floor = given.upto_floor,
    upto_ceiling = given.upto_ceiling,
    carry = given.carry::bigint[],
    upto_sequence = given.upto_sequence,
    upto_began = given.upto_began,
    window_since = given.window_since,
    window_bound = given.window_bound,
    window_of = given.upto_next,
    "position" = given."position",
    system_identifier = $10,
    timeline = $11,
    lsn = pg_current_wal_insert_lsn(),
    saved_at = clock_timestamp()
from unnest($1::smallint[], $2::bigint[], $3::pg_snapshot[], $4::pg_snapshot[], $5::xid8[],
        $6::bigint[], $7::bigint[], $8::text[], $9::bigint[], $12::bigint[], $13::xid8[],
        $14::pg_snapshot[], $15::bigint[])
    as given (bucket, epoch, from_snapshot, upto_snapshot, upto_next, upto_floor, upto_ceiling, carry,
        "position", upto_sequence, upto_began, window_since, window_bound)
where saved.bucket = given.bucket and saved.epoch = given.epoch
returning saved.bucket
