-- Purpose: which records of a poll are new. $1 the consumer, then one element per record: $2 aggregatetype,
--          $3 aggregateid, $4 seq, $5 position in decimal digits, $6 id; the last three null where there is none.
-- Locks:   the rows of these aggregates, in one order for all callers, to the end of the transaction.
-- Plan:    one key lookup per aggregate.
-- Hazard:  outside of the effect's transaction it promises nothing.
select postrider_inbox.admit($1, $2, $3, $4, $5::text[]::numeric[], $6) as is_new
