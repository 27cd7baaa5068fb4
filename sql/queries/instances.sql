-- Purpose: the instances of the tier and what each owns; for people (status).
-- Locks:   access share on postrider.instance and postrider.cursor.
-- Plan:    a handful of rows.
-- Hazard:  none: it only looks.
select name, shards,
    date_part('epoch', clock_timestamp() - started_at) as age_seconds,
    date_part('epoch', lease_until - clock_timestamp()) as lease_left_seconds,
    (select count(*) from postrider.cursor where owner = name) as buckets
from postrider.instance
order by name
