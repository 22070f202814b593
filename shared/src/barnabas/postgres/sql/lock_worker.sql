-- lock_worker: waits until no claim of this worker is on its way, and lets none begin before the commit.
--   $1 worker_id uuid
SELECT worker_id
  FROM workers
 WHERE worker_id = $1
   FOR UPDATE
