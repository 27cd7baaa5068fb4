-- Purpose: what one byte stands for in the database's encoding, in UTF-8.
-- Locks:   none. Plan: one row.
-- Hazard:  an error where it stands for nothing: that is the answer.
select encode(convert(decode('{byte}', 'hex'), current_setting('server_encoding'), 'UTF8'), 'hex')
