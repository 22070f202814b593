-- list_old_partitions: days that are over for longer than they are kept, in the order in which they may go.
--   $1 kept_days integer
WITH days AS MATERIALIZED (
    SELECT parent.relname::text AS parent, child.relname::text AS child
      FROM pg_class AS parent
      JOIN pg_inherits AS link ON link.inhparent = parent.oid
      JOIN pg_class AS child ON child.oid = link.inhrelid
     WHERE parent.relname IN ('job_payloads', 'job_results', 'job_attempts', 'deliveries', 'delivery_attempts')
       AND parent.relkind = 'p'
)
SELECT days.parent, to_date(right(days.child, 8), 'YYYYMMDD') AS day
  FROM days
 WHERE to_date(right(days.child, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - $1::integer
 -- What tells whether a day is still needed is looked up in the tables that go last.
 ORDER BY day, array_position(ARRAY['job_attempts', 'delivery_attempts', 'deliveries', 'job_results', 'job_payloads'], days.parent)
