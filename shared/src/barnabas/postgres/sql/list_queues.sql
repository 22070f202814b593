-- list_queues: every queue; there are few.
SELECT queue_id, name, shares
  FROM queues
 ORDER BY queue_id
