-- read_oldest_outbox: since when something has waited to be told; the present where nothing does.
SELECT COALESCE((SELECT outbox.created_at FROM outbox ORDER BY outbox.outbox_id LIMIT 1), clock_timestamp())
