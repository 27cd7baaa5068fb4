-- Purpose: more reasons for which an event is parked.
-- Locks:   exclusive on postrider.parked, which no application reads or writes.
-- Hazard:  a relay of an earlier version that still runs does not know the new reasons.

alter table postrider.parked drop constraint parked_reason_check;
alter table postrider.parked
    add constraint parked_reason check (reason in ('too-large', 'illegal-topic', 'bad-headers', 'bad-time',
        'refused', 'unreadable', 'topic-unavailable', 'follows'));
