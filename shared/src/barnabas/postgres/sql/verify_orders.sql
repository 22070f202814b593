-- verify_orders: lines of ordering keys that stand for ever: the turn belongs to a job that is neither open nor the dead letter that holds the line, or
-- the line has nobody in it; and places of such jobs.
--   $1 limit integer
SELECT found.tenant_id, found.ref_id, found.mark, found.detail
  FROM (
      SELECT line.tenant_id, line.job_id AS ref_id, 'turn' AS mark,
             CASE WHEN place.job_id IS NULL THEN format('has the turn of %L, and no place in that line', line.ordering_key)
                  ELSE format('has the turn of %L, and is neither open nor a dead letter', line.ordering_key) END AS detail
        FROM ordering_keys AS line
        LEFT JOIN ordering AS place ON place.tenant_id = line.tenant_id AND place.job_id = line.job_id AND place.ordering_key = line.ordering_key
       WHERE place.job_id IS NULL
          OR (NOT EXISTS (SELECT 1 FROM jobs AS job WHERE job.tenant_id = line.tenant_id AND job.job_id = line.job_id)
              AND NOT EXISTS (SELECT 1 FROM dead_letters AS dead WHERE dead.tenant_id = line.tenant_id AND dead.kind = 1 AND dead.ref = line.job_id))
       UNION ALL
      SELECT place.tenant_id, place.job_id, 'place',
             CASE WHEN line.tenant_id IS NULL THEN format('stands in the line of %L, in which nobody has the turn', place.ordering_key)
                  ELSE format('stands in the line of %L, and is neither open nor a dead letter', place.ordering_key) END
        FROM ordering AS place
        LEFT JOIN ordering_keys AS line ON line.tenant_id = place.tenant_id AND line.ordering_key = place.ordering_key
       WHERE line.tenant_id IS NULL
          OR (line.job_id <> place.job_id
              AND NOT EXISTS (SELECT 1 FROM jobs AS job WHERE job.tenant_id = place.tenant_id AND job.job_id = place.job_id)
              AND NOT EXISTS (SELECT 1 FROM dead_letters AS dead WHERE dead.tenant_id = place.tenant_id AND dead.kind = 1 AND dead.ref = place.job_id))
  ) AS found
 ORDER BY found.tenant_id, found.ref_id, found.mark
 LIMIT $1
