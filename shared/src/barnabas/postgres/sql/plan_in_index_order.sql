-- plan_in_index_order: for the rest of this transaction, read rows in an index's order instead of reading all of them and sorting.
-- The planner has no figures about the tables of open work, takes every tenant for a small one, and would pass by a LIMIT that matters.
SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)
