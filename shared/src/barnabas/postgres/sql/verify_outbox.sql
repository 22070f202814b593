-- verify_outbox: outbox rows older than a minute: neither their writer nor the relay could tell Kafka.
--   $1 limit integer
-- index: outbox_pkey
SELECT NULL::uuid AS tenant_id, NULL::uuid AS ref_id, line.outbox_id::text AS mark,
       format('outbox row %s of %s records has waited since %s', line.outbox_id, cardinality(line.ref_ids), line.created_at) AS detail
  FROM outbox AS line
 WHERE line.created_at < clock_timestamp() - interval '1 minute'
 ORDER BY line.outbox_id
 LIMIT $1
