-- delete_expired_worker: the reaper's first step. A claim locks this row first, so it either came before and is seen, or finds none.
--   $1 worker_id uuid
DELETE FROM workers
 WHERE worker_id = $1
   AND lease_until < clock_timestamp()
RETURNING worker_id
