-- delete_lease_batches_of: all that a dead worker left behind.
--   $1 worker_id uuid
DELETE FROM lease_batches
 WHERE worker_id = $1
