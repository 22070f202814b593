-- verify_gates: gates whose count of running jobs isn't the number of running jobs that hold a place in them.
--   $1 limit integer
-- rows:  tenant_id, ref_id, mark (what must stay the same for it to be the same finding), detail. One snapshot: `used` moves with the job.
WITH held AS (
    SELECT job.tenant_id, 1::smallint AS kind, 0 AS type_id, count(*) AS n
      FROM jobs AS job
     WHERE job.state = 3
       AND job.hooks & 1 <> 0
     GROUP BY job.tenant_id
     UNION ALL
    SELECT job.tenant_id, 2::smallint, job.type_id, count(*)
      FROM jobs AS job
     WHERE job.state = 3
       AND job.hooks & 256 <> 0
     GROUP BY job.tenant_id, job.type_id
),
counted AS (
    SELECT COALESCE(gate.tenant_id, held.tenant_id) AS tenant_id, COALESCE(gate.kind, held.kind) AS kind, COALESCE(gate.type_id, held.type_id) AS type_id,
           gate.used, COALESCE(held.n, 0) AS n
      FROM (SELECT gates.tenant_id, gates.kind, gates.type_id, gates.used FROM gates WHERE gates.kind IN (1, 2)) AS gate
      FULL JOIN held ON held.tenant_id = gate.tenant_id AND held.kind = gate.kind AND held.type_id = gate.type_id
)
SELECT counted.tenant_id, NULL::uuid AS ref_id, format('%s/%s: %s of %s', counted.kind, counted.type_id, counted.used, counted.n) AS mark,
       format('gate %s: used is %s, running jobs that hold a place are %s',
              CASE counted.kind WHEN 1 THEN 'of the tenant' ELSE 'of type ' || COALESCE(kind.name, counted.type_id::text) END,
              COALESCE(counted.used::text, 'nowhere'), counted.n) AS detail
  FROM counted
  LEFT JOIN job_types AS kind ON kind.type_id = counted.type_id
 WHERE counted.used IS DISTINCT FROM counted.n
 ORDER BY counted.tenant_id, counted.kind, counted.type_id
 LIMIT $1
