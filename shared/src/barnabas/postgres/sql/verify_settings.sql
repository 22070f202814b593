-- verify_settings: for this transaction only: how long a statement may take, and a planner that is free to read whole tables at once.
--   $1 statement_ms text
SELECT set_config('statement_timeout', $1, true), set_config('transaction_timeout', '0', true), set_config('lock_timeout', '2s', true),
       set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true),
       set_config('enable_mergejoin', 'on', true), set_config('jit', 'off', true)
