-- allow_long_statement: let this transaction's statements take longer than the login's may; the limits are back when it ends.
--   $1 statement_ms text
SELECT set_config('statement_timeout', $1, true), set_config('transaction_timeout', '0', true)
