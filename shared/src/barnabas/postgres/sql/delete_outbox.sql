-- delete_outbox: rows whose records the broker has acknowledged.
--   $1 outbox_ids bigint[]
DELETE FROM outbox
 WHERE outbox_id = ANY ($1::bigint[])
