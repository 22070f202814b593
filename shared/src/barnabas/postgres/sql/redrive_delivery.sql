-- redrive_delivery: see redrive_delivery_v1.
--   $1 tenant_id uuid   $2 delivery_id uuid   $3 due_at timestamptz
SELECT answer, outbox, event_id, endpoint_id, fence
  FROM redrive_delivery_v1($1, $2, $3)
