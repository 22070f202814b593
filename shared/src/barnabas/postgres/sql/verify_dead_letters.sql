-- verify_dead_letters: open dead letters of what didn't fail, or whose payload is gone, so that no redrive could send it. The newest 100,000.
--   $1 limit integer
-- index: job_results_pkey and deliveries_id of each day, job_payloads_pkey of one
SELECT judged.tenant_id, judged.ref AS ref_id, judged.at::text AS mark, judged.detail
  FROM (
      SELECT dead.tenant_id, dead.ref, dead.at,
             CASE WHEN dead.kind = 2 AND NOT EXISTS (SELECT 1
                                                       FROM deliveries AS delivery
                                                      WHERE delivery.tenant_id = dead.tenant_id
                                                        AND delivery.delivery_id = dead.ref
                                                        AND delivery.state = 5) THEN 'the dead letter of a delivery that has not failed'
                  WHEN dead.kind = 1 AND NOT EXISTS (SELECT 1
                                                       FROM job_results AS ended
                                                      WHERE ended.tenant_id = dead.tenant_id
                                                        AND ended.job_id = dead.ref
                                                        AND ended.state = 6) THEN 'the dead letter of a job that has not failed'
                  WHEN dead.kind = 1
                       AND NOT EXISTS (SELECT 1 FROM job_payloads AS sent WHERE sent.tenant_id = dead.tenant_id AND sent.job_id = dead.ref)
                       AND NOT EXISTS (SELECT 1 FROM job_payloads_kept AS kept WHERE kept.tenant_id = dead.tenant_id AND kept.job_id = dead.ref)
                      THEN 'the dead letter of a job whose payload is gone'
             END AS detail
        FROM (
            SELECT letter.tenant_id, letter.kind, letter.ref, letter.at
              FROM dead_letters AS letter
             ORDER BY letter.at DESC
             LIMIT 100000
        ) AS dead
  ) AS judged
 WHERE judged.detail IS NOT NULL
 ORDER BY judged.tenant_id, judged.ref
 LIMIT $1
