-- finish_deliveries: see finish_deliveries_v1.
--   $1 worker_id uuid    $2 tenant_ids uuid[]        $3 event_ids uuid[]      $4 endpoint_ids uuid[]   $5 fences integer[]
--   $6 states smallint[] $7 due_at timestamptz[]     $8 statuses smallint[]   $9 errors text[]         $10 started_at timestamptz[]
--   $11 durations_ms integer[]                       $12 bodies bytea[]       $13 reasons text[]       $14 disable boolean[]
--   $15 batch_ids uuid[] that are done with
SELECT * FROM finish_deliveries_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
