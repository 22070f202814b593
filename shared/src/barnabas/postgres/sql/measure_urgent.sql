-- measure_urgent: what alerts look at first: the outbox, and the oldest open dead letter of each kind.
-- index: outbox_pkey, dead_letters_at
SELECT (SELECT count(*) FROM outbox)::integer AS outbox_rows,
       COALESCE(extract(epoch FROM clock_timestamp() - (SELECT outbox.created_at FROM outbox ORDER BY outbox.outbox_id LIMIT 1)), 0)::float8
           AS outbox_oldest_seconds,
       ARRAY[(SELECT min(dead.at) FROM dead_letters AS dead WHERE dead.kind = 1), (SELECT min(dead.at) FROM dead_letters AS dead WHERE dead.kind = 2)]
           AS oldest_dead,
       ARRAY[(SELECT count(*) FROM (SELECT 1 FROM dead_letters AS dead WHERE dead.kind = 1 LIMIT 100000) AS counted),
             (SELECT count(*) FROM (SELECT 1 FROM dead_letters AS dead WHERE dead.kind = 2 LIMIT 100000) AS counted)] AS dead_letters
