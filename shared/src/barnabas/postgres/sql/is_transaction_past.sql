-- is_transaction_past: whether every transaction that could have missed the effects of this one has ended.
--   $1 transaction id text
SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8
