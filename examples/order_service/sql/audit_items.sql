-- Purpose: what is on hand, laid aside and gone, for the audit.
select sku, initial, on_hand, reserved, shipped from item order by sku
