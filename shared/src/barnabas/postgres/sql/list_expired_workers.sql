-- list_expired_workers: whose lease is over by the database's clock, with what judging that fairly needs.
SELECT worker_id, service, lease_until, clock_timestamp() AS now, pg_postmaster_start_time() AS server_started_at
  FROM workers
 WHERE lease_until < clock_timestamp()
 ORDER BY lease_until
