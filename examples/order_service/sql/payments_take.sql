-- Purpose: takes an amount, if the account has it. $1 customer, $2 amount in cents.
-- Hazard:  no row means that it is not there.
update account set balance_cents = balance_cents - $2 where customer = $1 and balance_cents >= $2
