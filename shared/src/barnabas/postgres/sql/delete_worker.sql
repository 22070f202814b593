-- delete_worker: comes after lock_worker. A process that stops takes its heartbeat row along, unless a claim whose answer it never got left something under
-- it: then the row stays for the reaper, who finds by it what to take back.
--   $1 worker_id uuid
DELETE FROM workers
 WHERE worker_id = $1
   AND NOT EXISTS (SELECT 1 FROM lease_batches WHERE lease_batches.worker_id = $1)
