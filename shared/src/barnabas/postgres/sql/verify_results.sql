-- verify_results: jobs with more than one end, and ends after more attempts than the job might have. Reads every day that is kept.
--   $1 limit integer
SELECT found.tenant_id, found.ref_id, found.mark, found.detail
  FROM (
      SELECT ended.tenant_id, ended.job_id AS ref_id, count(*)::text AS mark, format('has ended %s times', count(*)) AS detail
        FROM job_results AS ended
       GROUP BY ended.tenant_id, ended.job_id
      HAVING count(*) > 1
       UNION ALL
      SELECT ended.tenant_id, ended.job_id, ended.attempt::text, format('has ended with attempt %s of %s', ended.attempt, sent.max_attempts)
        FROM job_results AS ended
        JOIN job_payloads AS sent ON sent.tenant_id = ended.tenant_id AND sent.job_id = ended.job_id AND sent.max_attempts < ended.attempt
  ) AS found
 ORDER BY found.tenant_id, found.ref_id, found.mark
 LIMIT $1
