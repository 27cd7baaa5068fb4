-- Purpose: makes a publication without tables: the plug-in asks for one also where only messages are read.
-- Locks:   none. Plan: one catalog row.
-- Hazard:  needs the right to create in the database.
create publication {publication} with (publish = 'insert')
