-- read_shares: a queue's parts of the slots by priority, low to critical.
--   $1 queue_id smallint
SELECT shares
  FROM queues
 WHERE queue_id = $1
