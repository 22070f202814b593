-- delete_cancel_requests_of: nobody will take them any more.
--   $1 worker_id uuid
DELETE FROM cancel_requests
 WHERE worker_id = $1
