-- read_explanation_workers: the live workers of a queue, how many of them have a type, and whether Kafka is still to be told of a job.
--   $1 queue_id integer   $2 type_id integer   $3 job_id uuid
-- index: outbox_pkey (the oldest rows: what is older than them isn't there)
SELECT count(*)::integer AS workers, count(*) FILTER (WHERE live.has_type)::integer AS able,
       COALESCE(sum(live.slots) FILTER (WHERE live.has_type), 0)::integer AS slots,
       COALESCE((array_agg(live.worker_id ORDER BY live.worker_id))[:20], '{}') AS worker_ids,
       EXISTS (
           SELECT 1
             FROM (
                 SELECT outbox.ref_ids
                   FROM outbox
                  WHERE outbox.kind IN (1, 2)
                  ORDER BY outbox.outbox_id
                  LIMIT 1000
             ) AS untold
            WHERE $3::uuid = ANY (untold.ref_ids)
       ) AS is_untold
  FROM (
      SELECT workers.worker_id, workers.slots, $2::integer = ANY (workers.type_ids) AS has_type
        FROM workers
       WHERE workers.service = 'worker'
         AND workers.lease_until > clock_timestamp()
         AND $1::integer = ANY (workers.queue_ids)
  ) AS live
