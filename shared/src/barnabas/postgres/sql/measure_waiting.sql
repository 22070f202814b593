-- measure_waiting: what waits in bulk, counted once a minute: timers, and deliveries by state.
-- index: timers_poll_at, deliveries_pending and deliveries_parked of each day, lease_batches_pkey
SELECT (SELECT count(*) FROM timers)::integer AS timers,
       (SELECT count(*) FROM deliveries WHERE deliveries.state = 0)::integer AS pending,
       (SELECT count(*) FROM deliveries WHERE deliveries.state = 1)::integer AS parked,
       -- Of each batch that is held some are done already, so this is a little high.
       (SELECT COALESCE(sum(cardinality(lease_batches.endpoint_ids)), 0) FROM lease_batches)::integer AS running,
       (SELECT count(*) FROM timers WHERE timers.kind = 2)::integer AS retrying
