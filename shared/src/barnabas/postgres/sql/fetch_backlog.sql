-- fetch_backlog: see fetch_backlog_v1.
--   $1 queue_ids smallint[]   $2 tenants integer   $3 each integer
SELECT * FROM fetch_backlog_v1($1, $2, $3)
