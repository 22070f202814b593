-- read_intake_offsets: how far these partitions of the intake topic have been stored; a partition without a row begins at 0.
--   $1 topic_id text   $2 partitions integer[]
SELECT partition, next_offset
  FROM intake_offsets
 WHERE topic_id = $1
   AND partition = ANY ($2::integer[])
