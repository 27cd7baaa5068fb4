-- Purpose: takes buckets: the epoch rises, and a former owner saves nothing any more.
--          $1 our name, $2 buckets, $3 the epochs under which they were seen to be free.
-- Locks:   row locks on the buckets' cursors, for one short transaction.
--          A cursor that has no history yet gets this server's, and this database; another's is refused when it is loaded.
-- Plan:    one key lookup per bucket.
-- Hazard:  a bucket whose epoch has risen meanwhile was taken by another instance: it does not come
--          back. Nor does anything when our own lease has run out.
update postrider.cursor as taken
set epoch = taken.epoch + 1,
    owner = $1,
    system_identifier =
        coalesce(taken.system_identifier, (select system_identifier from pg_control_system())),
    timeline = coalesce(taken.timeline,
        ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer),
    lsn = coalesce(taken.lsn, pg_current_wal_insert_lsn()),
    database_oid = coalesce(taken.database_oid, (select oid from pg_database where datname = current_database())),
    cursor_oid = coalesce(taken.cursor_oid, taken.tableoid)
from unnest($2::smallint[], $3::bigint[]) as seen (bucket, epoch)
where taken.bucket = seen.bucket
    and taken.epoch = seen.epoch
    and exists (
        select from postrider.instance where name = $1 and lease_until > clock_timestamp())
returning taken.bucket, taken.epoch
