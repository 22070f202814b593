-- list_type_names: the names behind these numbers.
--   $1 type_ids integer[]
SELECT type_id AS id, name
  FROM job_types
 WHERE type_id = ANY ($1::integer[])
