-- insert_worker: the heartbeat row of a process that will hold jobs or deliveries.
--   $1 worker_id uuid   $2 service text   $3 host text   $4 pid integer   $5 slots integer   $6 type_ids integer[]   $7 lease interval
--   $8 queue_ids integer[]
INSERT INTO workers (worker_id, service, host, pid, slots, type_ids, queue_ids, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, $8, clock_timestamp() + $7)
