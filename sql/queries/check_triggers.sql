-- Purpose: triggers and rules that somebody has put on postrider's own tables.
-- Locks:   access share on catalogs.
-- Plan:    reads the catalog only.
-- Hazard:  postrider has none itself, as of migration 20. A rule that reads is that of a view.
select class.oid::regclass::text as table_name, 'trigger ' || quote_ident(trigger.tgname) as what
from pg_trigger as trigger
    join pg_class as class on class.oid = trigger.tgrelid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where namespace.nspname = 'postrider' and not trigger.tgisinternal and trigger.tgenabled <> 'D'
union all
select class.oid::regclass::text, 'rule ' || quote_ident(rule.rulename)
from pg_rewrite as rule
    join pg_class as class on class.oid = rule.ev_class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
where namespace.nspname = 'postrider' and rule.rulename <> '_RETURN' and rule.ev_enabled <> 'D'
order by 1, 2
