-- move_intake_offsets: take note, in the transaction that stores their records, of how far some partitions are stored now.
--   $1 topic_id text   $2 partitions integer[]   $3 from_offsets bigint[] (as read)   $4 to_offsets bigint[]
-- rows:  the partitions that moved; a missing one belongs to someone newer: roll back.
-- locks: the rows, in key order.   index: intake_offsets_pkey
WITH moved AS (
    SELECT *
      FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS t (partition, from_offset, to_offset)
     ORDER BY partition
)
INSERT INTO intake_offsets AS stored (topic_id, partition, next_offset)
SELECT $1, moved.partition, moved.to_offset
  FROM moved
 ORDER BY moved.partition
    ON CONFLICT ON CONSTRAINT intake_offsets_pkey DO UPDATE
   SET next_offset = excluded.next_offset
 WHERE stored.next_offset = (SELECT moved.from_offset FROM moved WHERE moved.partition = excluded.partition)
RETURNING partition
