-- set_queue_shares: how a queue's slots are divided among the priorities.
--   $1 name text   $2 shares smallint[]: low to critical
-- rows:  the queue; none: there is no such queue
UPDATE queues
   SET shares = $2
 WHERE name = $1
RETURNING queue_id, name, shares
