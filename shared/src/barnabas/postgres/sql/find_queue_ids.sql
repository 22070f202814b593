-- find_queue_ids: the numbers of these queues, made where missing.
--   $1 names text[]
WITH made AS (
    INSERT INTO queues (name)
    SELECT DISTINCT name FROM unnest($1::text[]) AS t (name)
     WHERE NOT EXISTS (SELECT 1 FROM queues AS known WHERE known.name = t.name)
     ORDER BY name
        ON CONFLICT DO NOTHING
    RETURNING queue_id, name
)
SELECT queue_id AS id, name FROM made
 UNION ALL
SELECT queue_id, name FROM queues WHERE name = ANY ($1::text[])
