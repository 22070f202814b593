-- delete_worker: a process that stops and holds nothing any more takes its heartbeat row along.
--   $1 worker_id uuid
DELETE FROM workers
 WHERE worker_id = $1
