-- list_queue_names: the names behind these numbers.
--   $1 queue_ids integer[]
SELECT queue_id AS id, name
  FROM queues
 WHERE queue_id = ANY ($1::integer[])
