-- Purpose: how many events an outbox was given, for the page.
select count(*) as events from outbox
