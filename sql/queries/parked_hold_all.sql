-- Purpose: from here on each parked event holds all others of its aggregate, whatever their seq: the sequence
--          was set back, and what comes now has lower numbers. Says whether anything is parked.
-- Locks:   row locks on the parked events, for one short transaction.
-- Plan:    reads postrider.parked once.
-- Hazard:  whoever has read the holds before must read them again before he sends anything that the
--          sequence gave out since. Done twice it changes nothing. An event that is read again and lies
--          before those that are parked is held, too: then it comes once more, behind them.
with marked as (
    update postrider.parked set holds_all = true where not holds_all
)
select exists (select from postrider.parked)
