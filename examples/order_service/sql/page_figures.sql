-- Purpose: what the inbox has admitted and dropped, for the page.
select coalesce(sum(admitted), 0)::bigint as admitted, coalesce(sum(repeats), 0)::bigint as repeats from inbox_figures
