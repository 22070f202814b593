-- 0006_delivery_moves: the functions that move deliveries between states, as 0002's do for jobs. Each locks in one order:
-- the holder's heartbeat, deliveries in key order, the rest.
--
-- States are those of domain.deliveries: 0 pending, 1 parked, 2 running, 3 retrying, 4 succeeded, 5 failed, 6 cancelled.
-- An outbox row of kind 4 is read by what became of each row: pending goes to deliveries.retry, retrying to retries (up to an
-- hour; above that the timer alone carries it), failed to deliveries.dlq for as long as its dead letter is open.

-- open_deliveries_v1: the rows of an event's deliveries, already held by this notifier where their lane had room.
--   p_states  2 held (fence 1, attempt 1), 1 parked, 6 cancelled with p_errors' reason
--   rows      the deliveries that are new; for a missing one the event came before
--   raises    BB001 when the worker's lease is over
CREATE FUNCTION open_deliveries_v1(
    p_worker uuid, p_batch uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_deliveries uuid[], p_jobs uuid[], p_states smallint[],
    p_errors text[]
)
RETURNS TABLE (tenant_id uuid, event_id uuid, endpoint_id uuid, state smallint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM workers WHERE worker_id = p_worker AND lease_until > clock_timestamp() FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of worker % is over', p_worker USING ERRCODE = 'BB001';
    END IF;

    RETURN QUERY
    WITH opened AS (
        INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, worker_id, finished_at, fence, state, attempt, error)
        SELECT new.tenant_id, new.event_id, new.endpoint_id, new.delivery_id, new.job_id, p_worker,
               CASE WHEN new.state = 6 THEN now() END, CASE WHEN new.state = 2 THEN 1 ELSE 0 END, new.state,
               CASE WHEN new.state = 2 THEN 1 ELSE 0 END, new.error
          FROM unnest(p_tenants, p_events, p_endpoints, p_deliveries, p_jobs, p_states, p_errors)
            AS new (tenant_id, event_id, endpoint_id, delivery_id, job_id, state, error)
         ORDER BY new.tenant_id, new.event_id, new.endpoint_id
            ON CONFLICT DO NOTHING
        RETURNING deliveries.tenant_id, deliveries.event_id, deliveries.endpoint_id, deliveries.state
    ),
    batch AS (
        INSERT INTO lease_batches (batch_id, worker_id, tenant_ids, ref_ids, endpoint_ids)
        SELECT p_batch, p_worker, array_agg(opened.tenant_id), array_agg(opened.event_id), array_agg(opened.endpoint_id)
          FROM opened
         WHERE opened.state = 2
        HAVING count(*) > 0
    )
    SELECT opened.tenant_id, opened.event_id, opened.endpoint_id, opened.state FROM opened;
END
$$;

-- claim_deliveries_v1: one durable verdict for each delivery that may be tried now.
--   p_actions  1 claim it, 2 park it (its lane is full), 3 cancel it with p_errors' reason (its endpoint is gone)
--   verdict    1 claimed, 2 parked, 3 early (due_at says until when), 4 cancelled; no row: stale (held, ended, or never there)
--   raises     BB001 when the worker's lease is over
CREATE FUNCTION claim_deliveries_v1(
    p_worker uuid, p_batch uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_actions smallint[], p_errors text[]
)
RETURNS TABLE (
    verdict smallint, tenant_id uuid, event_id uuid, endpoint_id uuid, job_id uuid, fence integer, attempt smallint, due_at timestamptz
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM workers WHERE worker_id = p_worker AND lease_until > clock_timestamp() FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of worker % is over', p_worker USING ERRCODE = 'BB001';
    END IF;

    RETURN QUERY
    WITH locked AS (
        SELECT d.tenant_id, d.event_id, d.endpoint_id, d.job_id, d.fence, d.attempt, d.due_at, wanted.action, wanted.error,
               d.state = 3 AND d.due_at > now() AND wanted.action <> 3 AS early
          FROM unnest(p_tenants, p_events, p_endpoints, p_actions, p_errors) AS wanted (tenant_id, event_id, endpoint_id, action, error)
          JOIN deliveries AS d ON d.tenant_id = wanted.tenant_id AND d.event_id = wanted.event_id AND d.endpoint_id = wanted.endpoint_id
         WHERE d.state IN (0, 1, 3)
         ORDER BY d.tenant_id, d.event_id, d.endpoint_id
           FOR UPDATE OF d
    ),
    moved AS (
        UPDATE deliveries AS d
           SET state = CASE locked.action WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE 6 END,
               fence = CASE locked.action WHEN 1 THEN d.fence + 1 ELSE d.fence END,
               attempt = CASE locked.action WHEN 1 THEN d.attempt + 1 ELSE d.attempt END,
               worker_id = p_worker,
               due_at = NULL,
               finished_at = CASE WHEN locked.action = 3 THEN now() END,
               error = COALESCE(locked.error, d.error)
          FROM locked
         WHERE NOT locked.early
           AND d.tenant_id = locked.tenant_id
           AND d.event_id = locked.event_id
           AND d.endpoint_id = locked.endpoint_id
        RETURNING d.tenant_id, d.event_id, d.endpoint_id, d.job_id, d.fence, d.attempt, locked.action
    ),
    batch AS (
        INSERT INTO lease_batches (batch_id, worker_id, tenant_ids, ref_ids, endpoint_ids)
        SELECT p_batch, p_worker, array_agg(moved.tenant_id), array_agg(moved.event_id), array_agg(moved.endpoint_id)
          FROM moved
         WHERE moved.action = 1
        HAVING count(*) > 0
    )
    SELECT CASE moved.action WHEN 1 THEN 1 WHEN 2 THEN 2 ELSE 4 END::smallint, moved.tenant_id, moved.event_id, moved.endpoint_id, moved.job_id,
           moved.fence, moved.attempt, NULL::timestamptz
      FROM moved
     UNION ALL
    SELECT 3::smallint, locked.tenant_id, locked.event_id, locked.endpoint_id, locked.job_id, locked.fence, locked.attempt, locked.due_at
      FROM locked
     WHERE locked.early;
END
$$;

-- take_parked_deliveries_v1: the oldest parked deliveries of these endpoints, as many of each as its lane has room for.
--   p_errors  not NULL: the endpoint is gone, so its parked deliveries are cancelled with that reason instead (no row comes back)
--   raises    BB001 when the worker's lease is over
CREATE FUNCTION take_parked_deliveries_v1(p_worker uuid, p_batch uuid, p_tenants uuid[], p_endpoints uuid[], p_rooms integer[], p_errors text[])
RETURNS TABLE (tenant_id uuid, event_id uuid, endpoint_id uuid, job_id uuid, fence integer, attempt smallint, state smallint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM workers WHERE worker_id = p_worker AND lease_until > clock_timestamp() FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of worker % is over', p_worker USING ERRCODE = 'BB001';
    END IF;

    RETURN QUERY
    WITH locked AS (
        SELECT seat.*, lane.error
          FROM unnest(p_tenants, p_endpoints, p_rooms, p_errors) AS lane (tenant_id, endpoint_id, room, error)
          CROSS JOIN LATERAL (
              SELECT d.tenant_id, d.event_id, d.endpoint_id
                FROM deliveries AS d
               WHERE d.tenant_id = lane.tenant_id
                 AND d.endpoint_id = lane.endpoint_id
                 AND d.state = 1
               ORDER BY d.event_id
               LIMIT lane.room
                 FOR UPDATE SKIP LOCKED
          ) AS seat
    ),
    moved AS (
        UPDATE deliveries AS d
           SET state = CASE WHEN locked.error IS NULL THEN 2 ELSE 6 END,
               fence = CASE WHEN locked.error IS NULL THEN d.fence + 1 ELSE d.fence END,
               attempt = CASE WHEN locked.error IS NULL THEN d.attempt + 1 ELSE d.attempt END,
               worker_id = p_worker,
               finished_at = CASE WHEN locked.error IS NOT NULL THEN now() END,
               error = COALESCE(locked.error, d.error)
          FROM locked
         WHERE d.tenant_id = locked.tenant_id
           AND d.event_id = locked.event_id
           AND d.endpoint_id = locked.endpoint_id
        RETURNING d.tenant_id, d.event_id, d.endpoint_id, d.job_id, d.fence, d.attempt, d.state
    ),
    batch AS (
        INSERT INTO lease_batches (batch_id, worker_id, tenant_ids, ref_ids, endpoint_ids)
        SELECT p_batch, p_worker, array_agg(moved.tenant_id), array_agg(moved.event_id), array_agg(moved.endpoint_id)
          FROM moved
         WHERE moved.state = 2
        HAVING count(*) > 0
    )
    SELECT moved.tenant_id, moved.event_id, moved.endpoint_id, moved.job_id, moved.fence, moved.attempt, moved.state FROM moved;
END
$$;

-- finish_deliveries_v1: what became of held deliveries, but only for the worker that still holds each of them.
--   p_states   3 retrying (p_due), 4 succeeded, 5 failed (p_reasons: a dead letter), 6 cancelled
--   p_started  NULL: no call was made, so the attempt isn't charged and leaves no row
--   p_disable  the receiver asked to be left alone: its endpoint is disabled
--   rows       the deliveries that this call moved, or its own first try had (one may come twice); a missing one is superseded
--   outbox     in the rows of what this call moved: the row that tells Kafka, NULL when there is none
CREATE FUNCTION finish_deliveries_v1(
    p_worker uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_fences integer[], p_states smallint[], p_due timestamptz[],
    p_statuses smallint[], p_errors text[], p_started timestamptz[], p_durations integer[], p_bodies bytea[], p_reasons text[],
    p_disable boolean[], p_batches uuid[]
)
RETURNS TABLE (event_id uuid, endpoint_id uuid, outbox bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moved_count integer;
BEGIN
    RETURN QUERY
    WITH done AS (
        SELECT *
          FROM unnest(p_tenants, p_events, p_endpoints, p_fences, p_states, p_due, p_statuses, p_errors, p_started, p_durations, p_bodies,
                      p_reasons, p_disable)
            AS t (tenant_id, event_id, endpoint_id, fence, state, due_at, status, error, started_at, duration_ms, body, reason, disable)
    ),
    locked AS (
        SELECT done.*
          FROM done
          JOIN deliveries AS d ON d.tenant_id = done.tenant_id AND d.event_id = done.event_id AND d.endpoint_id = done.endpoint_id
         WHERE d.fence = done.fence
           AND d.worker_id = p_worker
           AND d.state = 2
         ORDER BY d.tenant_id, d.event_id, d.endpoint_id
           FOR UPDATE OF d
    ),
    moved AS (
        UPDATE deliveries AS d
           SET state = locked.state,
               due_at = locked.due_at,
               attempt = CASE WHEN locked.started_at IS NULL THEN d.attempt - 1 ELSE d.attempt END,
               finished_at = CASE WHEN locked.state >= 4 THEN now() END,
               last_status = CASE WHEN locked.started_at IS NULL THEN d.last_status ELSE locked.status END,
               error = locked.error
          FROM locked
         WHERE d.tenant_id = locked.tenant_id
           AND d.event_id = locked.event_id
           AND d.endpoint_id = locked.endpoint_id
        RETURNING d.tenant_id, d.event_id, d.endpoint_id, d.delivery_id, d.fence, d.attempt, d.state, d.due_at, locked.status, locked.error,
                  locked.started_at, locked.duration_ms, locked.body, locked.reason, locked.disable
    ),
    called AS (
        INSERT INTO delivery_attempts (tenant_id, event_id, endpoint_id, fence, attempt, started_at, duration_ms, status, error, response_body)
        SELECT moved.tenant_id, moved.event_id, moved.endpoint_id, moved.fence, moved.attempt, moved.started_at, moved.duration_ms, moved.status,
               moved.error, moved.body
          FROM moved
         WHERE moved.started_at IS NOT NULL
    ),
    timed AS (
        INSERT INTO timers (tenant_id, ref_id, endpoint_id, kind, fence, due_at, poll_at)
        SELECT moved.tenant_id, moved.event_id, moved.endpoint_id, 2, moved.fence, moved.due_at,
               -- A record that a tier lost is late by five seconds, not for ever.
               CASE WHEN moved.due_at <= now() + interval '1 hour' THEN moved.due_at + interval '5 seconds' ELSE moved.due_at END
          FROM moved
         WHERE moved.state = 3
            ON CONFLICT ON CONSTRAINT timers_pkey DO UPDATE SET fence = excluded.fence, due_at = excluded.due_at, poll_at = excluded.poll_at
    ),
    dead AS (
        INSERT INTO dead_letters (tenant_id, kind, ref, reason)
        SELECT moved.tenant_id, 2, moved.delivery_id, moved.reason
          FROM moved
         WHERE moved.state = 5
            ON CONFLICT ON CONSTRAINT dead_letters_pkey DO UPDATE SET reason = excluded.reason, at = excluded.at
    ),
    disabled AS (
        UPDATE endpoints
           SET disabled_at = now(), disabled_reason = 'gone'
          FROM (SELECT DISTINCT moved.tenant_id, moved.endpoint_id FROM moved WHERE moved.disable) AS gone
         WHERE endpoints.tenant_id = gone.tenant_id
           AND endpoints.endpoint_id = gone.endpoint_id
           AND endpoints.disabled_at IS NULL
    ),
    told AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences)
        SELECT 4, array_agg(moved.tenant_id), array_agg(moved.event_id), array_agg(moved.endpoint_id), array_agg(moved.fence)
          FROM moved
         WHERE moved.state = 5
            OR (moved.state = 3 AND moved.due_at <= now() + interval '1 hour')
        HAVING count(*) > 0
        RETURNING outbox_id
    )
    SELECT moved.event_id, moved.endpoint_id, (SELECT told.outbox_id FROM told) FROM moved;
    GET DIAGNOSTICS moved_count = ROW_COUNT;

    IF cardinality(p_batches) > 0 THEN
        DELETE FROM lease_batches WHERE batch_id = ANY (p_batches);
    END IF;

    IF moved_count < cardinality(p_events) THEN
        RETURN QUERY
        SELECT d.event_id, d.endpoint_id, NULL::bigint
          FROM unnest(p_tenants, p_events, p_endpoints, p_fences, p_states, p_due) AS t (tenant_id, event_id, endpoint_id, fence, state, due_at)
          JOIN deliveries AS d ON d.tenant_id = t.tenant_id AND d.event_id = t.event_id AND d.endpoint_id = t.endpoint_id AND d.fence = t.fence
         WHERE d.worker_id = p_worker
           AND d.state = t.state
           AND d.due_at IS NOT DISTINCT FROM t.due_at;
    END IF;
END
$$;

-- release_deliveries_v1: let go of held deliveries without a charged attempt: a hand-back, or the reaper for a dead notifier.
--   p_fences  the fences held; a NULL in it, or NULL for all: whatever fence that worker holds
--   released  event ids of those let go; outbox: the row that tells Kafka, NULL when there is none
CREATE FUNCTION release_deliveries_v1(
    p_worker uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_fences integer[], p_batches uuid[], OUT released uuid[], OUT outbox bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH locked AS (
        SELECT d.tenant_id, d.event_id, d.endpoint_id
          FROM unnest(p_tenants, p_events, p_endpoints, p_fences) AS gone (tenant_id, event_id, endpoint_id, fence)
          JOIN deliveries AS d ON d.tenant_id = gone.tenant_id AND d.event_id = gone.event_id AND d.endpoint_id = gone.endpoint_id
         WHERE (gone.fence IS NULL OR d.fence = gone.fence)
           AND d.worker_id = p_worker
           AND d.state = 2
         ORDER BY d.tenant_id, d.event_id, d.endpoint_id
           FOR UPDATE OF d
    ),
    freed AS (
        UPDATE deliveries AS d
           SET state = 0, worker_id = NULL, due_at = NULL, attempt = d.attempt - 1
          FROM locked
         WHERE d.tenant_id = locked.tenant_id
           AND d.event_id = locked.event_id
           AND d.endpoint_id = locked.endpoint_id
        RETURNING d.tenant_id, d.event_id, d.endpoint_id, d.fence
    ),
    told AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences)
        SELECT 4, array_agg(freed.tenant_id), array_agg(freed.event_id), array_agg(freed.endpoint_id), array_agg(freed.fence)
          FROM freed
        HAVING count(*) > 0
        RETURNING outbox_id, ref_ids
    )
    SELECT told.ref_ids, told.outbox_id INTO released, outbox FROM told;

    IF cardinality(p_batches) > 0 THEN
        DELETE FROM lease_batches WHERE batch_id = ANY (p_batches);
    END IF;
END
$$;
