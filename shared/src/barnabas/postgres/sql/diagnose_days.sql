-- diagnose_days: by table that is cut by day, the first day from today on that has no partition.
SELECT parent.relname::text AS parent, min(wanted.day)::date AS missing
  FROM pg_class AS parent
  CROSS JOIN generate_series((now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + 30, interval '1 day') AS wanted (day)
 WHERE parent.relkind = 'p'
   AND parent.relnamespace = 'public'::regnamespace
   AND parent.relname IN ('job_payloads', 'job_results', 'job_attempts', 'deliveries', 'delivery_attempts')
   AND to_regclass(format('public.%I', parent.relname || '_' || to_char(wanted.day, 'YYYYMMDD'))) IS NULL
 GROUP BY parent.relname
 ORDER BY parent.relname
