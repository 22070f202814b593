-- insert_queue: make a queue, unless it is there or there are as many as may be; under the lock of `raise_revision`.
--   $1 name text   $2 queues_max integer
-- rows:  none when nothing was made
INSERT INTO queues (name)
SELECT $1
 WHERE (SELECT count(*) FROM queues) < $2
   AND NOT EXISTS (SELECT 1 FROM queues AS known WHERE known.name = $1)
    ON CONFLICT DO NOTHING
RETURNING queue_id
