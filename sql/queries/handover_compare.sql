-- Purpose: what was recorded at the hand-over, beside what {outbox} retains here. No row where nothing was recorded.
-- Locks:   access share on the outbox. Whoever goes by it has locked writers out.
-- Plan:    reads every partition from end to end.
-- Hazard:  a record of a version before had the sum of all seq in place of the digest.
select recorded.events as recorded, recorded.drawn, here.events,
    recorded.seq_sum in (here.digest, here.seq_sum) as is_same_digest,
    (select count(*) from {outbox} where seq > coalesce(recorded.highest_seq, -9223372036854775808)) as above
from postrider.handover as recorded,
    (select count(*) as events, coalesce(sum(seq), 0) as seq_sum, {digest} as digest from {outbox}) as here
