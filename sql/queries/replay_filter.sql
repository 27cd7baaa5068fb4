-- Purpose: which events a replay is about: a condition on `event`, a row of the outbox. $1 aggregate types with $2 an id
--          each, null for all of the type; $3 types; $4 ids; $5 the lowest and $6 the highest seq; $7 since and $8
--          until when they were written. Each but $5 and $6 null for any.
-- Locks:   none of its own.
-- Plan:    seq by the index; all else is looked at row by row.
-- Hazard:  none.
event.seq >= $5 and event.seq <= $6
    and ($1::text[] is null or exists (
        select from unnest($1, $2::text[]) as asked (aggregatetype, aggregateid)
        where asked.aggregatetype = event.aggregatetype
            and (asked.aggregateid is null or asked.aggregateid = event.aggregateid)))
    and ($3::text[] is null or event.type = any ($3))
    and ($4::uuid[] is null or event.id = any ($4))
    and ($7::timestamptz is null or event.created_at >= $7)
    and ($8::timestamptz is null or event.created_at < $8)
