-- Purpose: what is read of a bucket is all of it: a partition that was detached is missed. And a cursor says in which
--          database it was saved: a copy or a restore on the same server has the server's history.
-- Locks:   exclusive on postrider.cursor, for a moment; no application holds a lock there.
-- Hazard:  a relay of an earlier version saves no database, and does not miss a partition.

-- Rows are read by their bucket's name, and none of a detached partition comes by that. Asked in the statement that
-- reads: it holds locks by then which no partition can leave under.
create function postrider.has_its_partitions(buckets regclass[]) returns boolean
language plpgsql stable
as $has$
declare
    bucket regclass;
begin
    if (select count(*) from pg_catalog.pg_inherits where inhparent = any(buckets) and not inhdetachpending)
        < 3 * cardinality(buckets)
    then
        select one into strict bucket
        from unnest(buckets) as one
        where (select count(*) from pg_catalog.pg_inherits where inhparent = one and not inhdetachpending) < 3
        limit 1;
        raise undefined_table using message = format('a partition of %s is detached or dropped', bucket);
    end if;
    return true;
end
$has$;
comment on function postrider.has_its_partitions(regclass[]) is
    'true, or raises undefined_table where one of the buckets has fewer partitions than generations';

-- Null where none was saved yet. A copy of the database has another oid; a restore makes the table anew.
alter table postrider.cursor
    add column database_oid oid,
    add column cursor_oid oid;
comment on column postrider.cursor.database_oid is 'the database in which it was saved';
comment on column postrider.cursor.cursor_oid is 'the oid of this table when it was saved';
create function postrider.is_saved_here(database_oid oid, cursor_oid oid) returns boolean
language sql stable
return database_oid is null
    or (database_oid = (select oid from pg_catalog.pg_database where datname = current_database())
        and cursor_oid = 'postrider.cursor'::regclass::oid);
comment on function postrider.is_saved_here(oid, oid) is
    'whether a cursor was saved in this database, and not in one of which this is a copy or a restore';

-- They run with their caller's rights; where default privileges are hardened, nobody could call them.
grant execute on function postrider.has_its_partitions(regclass[]), postrider.is_saved_here(oid, oid) to public;
