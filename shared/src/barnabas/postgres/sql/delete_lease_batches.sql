-- delete_lease_batches: batches whose jobs have all ended or been let go.
--   $1 batch_ids uuid[]
DELETE FROM lease_batches
 WHERE batch_id = ANY ($1::uuid[])
