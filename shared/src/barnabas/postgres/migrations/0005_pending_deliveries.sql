-- 0005_pending_deliveries: what the reconciler looks through for deliveries whose record Kafka has lost.
--
-- A delivery is pending for a moment only: handed back, redriven, or due again. So the index is nearly empty, and most deliveries
-- never enter it.

CREATE INDEX deliveries_pending ON deliveries (event_id) WHERE state = 0;
COMMENT ON INDEX deliveries_pending IS 'list_pending_deliveries: the oldest that may be tried and that nobody holds';
