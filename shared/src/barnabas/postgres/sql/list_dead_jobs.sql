-- list_dead_jobs: a page of a tenant's open dead letters that are jobs, newest (by submission) first.
--   $1 tenant_id uuid   $2 before job_id uuid   $3 limit integer   $4 type text or NULL   $5 reason text or NULL   $6 after timestamptz or NULL
--   $7 until timestamptz or NULL   $8 job_ids uuid[] or NULL
-- index: dead_letters_pkey
SELECT dead.ref, dead.reason, dead.at
  FROM dead_letters AS dead
 WHERE dead.tenant_id = $1
   AND dead.kind = 1
   AND dead.ref < $2
   AND ($8::uuid[] IS NULL OR dead.ref = ANY ($8))
   AND ($5::text IS NULL OR dead.reason = $5)
   AND ($6::timestamptz IS NULL OR dead.at > $6)
   AND ($7::timestamptz IS NULL OR dead.at < $7)
   AND ($4::text IS NULL OR EXISTS (SELECT 1
                                      FROM job_results AS result
                                      JOIN job_types AS kind ON kind.type_id = result.type_id
                                     WHERE result.tenant_id = dead.tenant_id
                                       AND result.job_id = dead.ref
                                       AND kind.name = $4))
 ORDER BY dead.ref DESC
 LIMIT $3
