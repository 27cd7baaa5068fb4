-- Purpose: how values are printed, for the stream and for the copy before it: the same text comes from both.
-- Locks:   none.
-- Plan:    none.
-- Hazard:  a role's, a database's or a server's defaults would make two texts of one value, and one
--          aggregate two.
set datestyle = 'ISO, MDY';
set intervalstyle = postgres;
set timezone = 'UTC';
set bytea_output = hex;
set extra_float_digits = 1;
set xmlbinary = base64;
set lc_monetary = 'C'
