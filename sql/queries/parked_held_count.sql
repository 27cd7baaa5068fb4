-- Purpose: how many aggregates of our buckets are held, for the gauge. $1 buckets.
-- Locks:   access share on postrider.parked.
-- Plan:    reads all parked rows of the buckets, without their payloads; asked once a minute at most.
-- Hazard:  none; it is the figure of a moment.
select count(distinct aggregate) as held from postrider.parked where bucket = any($1::smallint[])
