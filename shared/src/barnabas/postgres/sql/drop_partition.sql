-- drop_partition: see drop_partition_v1; false when something open still needs it.
--   $1 parent text   $2 day date
SELECT drop_partition_v1($1, $2)
