-- insert_outbox: one row that says what Kafka must be told; returns its id.
--   $1 kind smallint   $2 tenant_ids uuid[]   $3 ref_ids uuid[]   $4 endpoint_ids uuid[] or NULL   $5 fences integer[]
INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences)
VALUES ($1, $2, $3, $4, $5)
RETURNING outbox_id
