-- delete_old_redrives: one chunk of the notes on redrives whose dead letter is long forgotten.
--   $1 age interval   $2 limit integer
WITH old AS MATERIALIZED (
    SELECT redrives.tenant_id, redrives.redrive_of
      FROM redrives
     WHERE redrives.created_at < now() - $1::interval
       AND NOT EXISTS (SELECT 1 FROM jobs AS job WHERE job.tenant_id = redrives.tenant_id AND job.job_id = redrives.job_id)
     LIMIT $2
)
DELETE FROM redrives
 USING old
 WHERE redrives.tenant_id = old.tenant_id
   AND redrives.redrive_of = old.redrive_of
