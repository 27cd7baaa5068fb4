-- Purpose: adds a poll's figures. $1 consumer, $2 new records, $3 repeats.
insert into inbox_figures as kept (consumer, admitted, repeats)
values ($1, $2, $3)
on conflict (consumer) do update
set admitted = kept.admitted + excluded.admitted, repeats = kept.repeats + excluded.repeats
