-- Purpose: the instances of the tier and what each owns; for people (status).
-- Locks:   access share on postrider.instance and postrider.cursor.
-- Plan:    a handful of rows.
-- Hazard:  a time may be infinite, and nothing can be subtracted from that.
select name, shards,
    date_part('epoch', clock_timestamp()
        - least(greatest(started_at, timestamptz 'epoch'), clock_timestamp())) as age_seconds,
    date_part('epoch', least(greatest(lease_until, timestamptz 'epoch'), clock_timestamp() + interval '100 years')
        - clock_timestamp()) as lease_left_seconds,
    (select count(*) from postrider.cursor where owner = name) as buckets
from postrider.instance
order by name
