-- write_progress: the latest report of running attempts; an older fence never overwrites a newer one's.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[] (in key order)   $3 fences integer[]   $4 percents real[]   $5 messages text[]
INSERT INTO job_progress (tenant_id, job_id, fence, percent, message)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::real[], $5::text[])
    ON CONFLICT ON CONSTRAINT job_progress_pkey DO UPDATE
   SET fence = excluded.fence, at = now(), percent = excluded.percent, message = excluded.message
 WHERE job_progress.fence <= excluded.fence
