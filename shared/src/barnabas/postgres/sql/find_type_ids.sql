-- find_type_ids: the numbers of these job types, made where missing.
--   $1 names text[]
WITH made AS (
    INSERT INTO job_types (name)
    SELECT DISTINCT name FROM unnest($1::text[]) AS t (name)
     WHERE NOT EXISTS (SELECT 1 FROM job_types AS known WHERE known.name = t.name)
     ORDER BY name
        ON CONFLICT DO NOTHING
    RETURNING type_id, name
)
SELECT type_id AS id, name FROM made
 UNION ALL
SELECT type_id, name FROM job_types WHERE name = ANY ($1::text[])
