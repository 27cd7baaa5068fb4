-- Purpose: how many records were new and how many were repeats, for people to see; nothing depends on it.
create table inbox_figures (
    consumer text primary key,
    admitted bigint not null,
    repeats bigint not null
);
