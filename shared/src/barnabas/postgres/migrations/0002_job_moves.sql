-- 0002_job_moves: the functions that move jobs between states. Each locks in one order: the holder's heartbeat, gates, jobs, the rest.
--
-- They are functions because what is looked at must be looked at after the locks are held: inside one, each statement has
-- a snapshot of its own, in one round trip. Names are versioned; a later release adds _v2 beside _v1.

-- claim_jobs_v1: give a worker the jobs it has slots for, with one durable verdict for each record handed in.
--   p_timeouts_ms  the time-out of each of p_types where a job names none: stored, so that the reaper knows every deadline
--   verdict  1 claimed, 2 parked (its tenant's gate is full), 3 early, 4 unhandled (no such handler here); no row: stale
--   raises   BB001 when the worker's lease is over: it must go on under a new id
CREATE FUNCTION claim_jobs_v1(p_worker uuid, p_batch uuid, p_tenants uuid[], p_jobs uuid[], p_types integer[], p_timeouts_ms integer[])
RETURNS TABLE (
    verdict smallint, tenant_id uuid, job_id uuid, fence integer, attempt smallint, max_attempts smallint, losses smallint, hooks smallint,
    type_id integer, priority smallint, queue_id smallint, timeout_ms integer, ready_at timestamptz, due_at timestamptz, started_at timestamptz,
    payload bytea, metadata bytea, retry bytea, trace bytea
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    claimed_count integer;
BEGIN
    -- The reaper deletes this row first: a claim either comes before that and is seen by it, or finds no row.
    PERFORM 1 FROM workers WHERE worker_id = p_worker AND lease_until > clock_timestamp() FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of worker % is over', p_worker USING ERRCODE = 'BB001';
    END IF;

    PERFORM 1 FROM gates WHERE gates.kind = 1 AND gates.tenant_id = ANY (p_tenants) ORDER BY gates.tenant_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY
        WITH claimed AS (
            UPDATE jobs AS job
               SET state = 3, fence = job.fence + 1, attempt = job.attempt + 1, worker_id = p_worker, started_at = now(), hooks = job.hooks & ~128,
                   timeout_ms = COALESCE(job.timeout_ms, p_timeouts_ms[array_position(p_types, job.type_id)])
              FROM unnest(p_tenants, p_jobs) AS wanted (tenant_id, job_id)
             WHERE job.tenant_id = wanted.tenant_id
               AND job.job_id = wanted.job_id
               AND (job.state = 2 OR (job.state IN (0, 4) AND job.due_at <= now()))
               AND job.type_id = ANY (p_types)
            RETURNING job.*, old.hooks AS hooks_before
        ),
        unparked AS (
            DELETE FROM waiting
             USING claimed
             WHERE claimed.hooks_before & 128 <> 0
               AND waiting.tenant_id = claimed.tenant_id
               AND waiting.job_id = claimed.job_id
        ),
        batch AS (
            INSERT INTO lease_batches (batch_id, worker_id, tenant_ids, ref_ids)
            SELECT p_batch, p_worker, array_agg(claimed.tenant_id), array_agg(claimed.job_id)
              FROM claimed
            HAVING count(*) > 0
        )
        SELECT 1::smallint, job.tenant_id, job.job_id, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks,
               job.type_id, job.priority, job.queue_id, job.timeout_ms, job.ready_at, job.due_at, job.started_at,
               COALESCE(sent.payload, (SELECT kept.payload FROM job_payloads_kept AS kept WHERE kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
               COALESCE(sent.metadata, (SELECT kept.metadata FROM job_payloads_kept AS kept WHERE sent.job_id IS NULL AND kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
               COALESCE(sent.retry, (SELECT kept.retry FROM job_payloads_kept AS kept WHERE sent.job_id IS NULL AND kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
               sent.trace
          FROM claimed AS job
          LEFT JOIN job_payloads AS sent ON sent.tenant_id = job.tenant_id AND sent.job_id = job.job_id;
        GET DIAGNOSTICS claimed_count = ROW_COUNT;
    ELSE
        RETURN QUERY
        WITH locked AS (
            SELECT job.*, wanted.ord
              FROM unnest(p_tenants, p_jobs) WITH ORDINALITY AS wanted (tenant_id, job_id, ord)
              JOIN jobs AS job ON job.tenant_id = wanted.tenant_id AND job.job_id = wanted.job_id
             ORDER BY job.tenant_id, job.job_id
               FOR UPDATE OF job
        ),
        gate AS (
            SELECT gates.tenant_id, gates.allowed - gates.used AS room,
                   EXISTS (SELECT 1 FROM waiting WHERE waiting.tenant_id = gates.tenant_id AND waiting.kind = 1) AS has_waiters
              FROM gates
             WHERE gates.kind = 1
               AND gates.tenant_id = ANY (p_tenants)
               AND gates.allowed IS NOT NULL
        ),
        able AS (
            SELECT locked.*, gate.room, gate.tenant_id IS NOT NULL AS limited, seat.seq, seat.woken_at IS NOT NULL AS woken,
                   -- Whoever arrives while others wait, or are on their way back, goes behind them, room or not.
                   seat.woken_at IS NOT NULL OR NOT gate.has_waiters AS in_turn
              FROM locked
              LEFT JOIN gate ON gate.tenant_id = locked.tenant_id
              LEFT JOIN waiting AS seat ON locked.hooks & 128 <> 0 AND seat.tenant_id = locked.tenant_id AND seat.job_id = locked.job_id
             WHERE (locked.state = 2 OR (locked.state IN (0, 4) AND locked.due_at <= now()))
               AND locked.type_id = ANY (p_types)
        ),
        ranked AS (
            SELECT able.*, row_number() OVER (PARTITION BY able.tenant_id, able.in_turn ORDER BY able.woken DESC, able.priority DESC, able.seq, able.ord) AS rank
              FROM able
        ),
        judged AS (
            SELECT ranked.*, NOT ranked.limited OR (ranked.in_turn AND ranked.rank <= ranked.room) AS admitted
              FROM ranked
        ),
        claimed AS (
            UPDATE jobs AS job
               SET state = 3, fence = job.fence + 1, attempt = job.attempt + 1, worker_id = p_worker, started_at = now(),
                   timeout_ms = COALESCE(job.timeout_ms, p_timeouts_ms[array_position(p_types, job.type_id)]),
                   hooks = (job.hooks & ~128) | CASE WHEN judged.limited THEN 1 ELSE 0 END
              FROM judged
             WHERE judged.admitted
               AND job.tenant_id = judged.tenant_id
               AND job.job_id = judged.job_id
            RETURNING job.*, old.hooks AS hooks_before
        ),
        counted AS (
            UPDATE gates
               SET used = gates.used + more.n
              FROM (SELECT claimed.tenant_id, count(*) AS n FROM claimed WHERE claimed.hooks & 1 <> 0 GROUP BY claimed.tenant_id) AS more
             WHERE gates.tenant_id = more.tenant_id
               AND gates.kind = 1
        ),
        unparked AS (
            DELETE FROM waiting
             USING claimed
             WHERE claimed.hooks_before & 128 <> 0
               AND waiting.tenant_id = claimed.tenant_id
               AND waiting.job_id = claimed.job_id
        ),
        parked AS (
            INSERT INTO waiting (tenant_id, kind, precedence, job_id, type_id)
            SELECT judged.tenant_id, 1, 3 - judged.priority, judged.job_id, judged.type_id
              FROM judged
             WHERE NOT judged.admitted
             ORDER BY judged.ord
                ON CONFLICT ON CONSTRAINT waiting_job DO UPDATE SET woken_at = NULL, kind = 1
        ),
        marked AS (
            UPDATE jobs AS job
               SET hooks = job.hooks | 128
              FROM judged
             WHERE NOT judged.admitted
               AND judged.hooks & 128 = 0
               AND job.tenant_id = judged.tenant_id
               AND job.job_id = judged.job_id
        ),
        batch AS (
            INSERT INTO lease_batches (batch_id, worker_id, tenant_ids, ref_ids)
            SELECT p_batch, p_worker, array_agg(claimed.tenant_id), array_agg(claimed.job_id)
              FROM claimed
            HAVING count(*) > 0
        )
        SELECT 1::smallint, job.tenant_id, job.job_id, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks,
               job.type_id, job.priority, job.queue_id, job.timeout_ms, job.ready_at, job.due_at, job.started_at,
               COALESCE(sent.payload, (SELECT kept.payload FROM job_payloads_kept AS kept WHERE kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
               COALESCE(sent.metadata, (SELECT kept.metadata FROM job_payloads_kept AS kept WHERE sent.job_id IS NULL AND kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
               COALESCE(sent.retry, (SELECT kept.retry FROM job_payloads_kept AS kept WHERE sent.job_id IS NULL AND kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
               sent.trace
          FROM claimed AS job
          LEFT JOIN job_payloads AS sent ON sent.tenant_id = job.tenant_id AND sent.job_id = job.job_id
         UNION ALL
        SELECT 2::smallint, judged.tenant_id, judged.job_id, judged.fence, judged.attempt, judged.max_attempts, judged.losses, judged.hooks,
               judged.type_id, judged.priority, judged.queue_id, judged.timeout_ms, judged.ready_at, judged.due_at, NULL,
               NULL, NULL, NULL, NULL
          FROM judged
         WHERE NOT judged.admitted;
        GET DIAGNOSTICS claimed_count = ROW_COUNT;
    END IF;

    IF claimed_count < cardinality(p_jobs) THEN
        -- What is left is early (its timer brings it), without a handler here, or stale: running, ended, or never there.
        RETURN QUERY
        WITH unhandled AS (
            UPDATE jobs AS job
               SET hooks = job.hooks | 128
              FROM unnest(p_tenants, p_jobs) AS wanted (tenant_id, job_id)
             WHERE job.tenant_id = wanted.tenant_id
               AND job.job_id = wanted.job_id
               AND (job.state = 2 OR (job.state IN (0, 4) AND job.due_at <= now()))
               AND job.type_id <> ALL (p_types)
            RETURNING job.*
        ),
        parked AS (
            INSERT INTO waiting (tenant_id, kind, precedence, job_id, type_id)
            SELECT unhandled.tenant_id, 2, 3 - unhandled.priority, unhandled.job_id, unhandled.type_id
              FROM unhandled
                ON CONFLICT ON CONSTRAINT waiting_job DO UPDATE SET woken_at = NULL, kind = 2
        )
        SELECT 4::smallint, job.tenant_id, job.job_id, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks,
               job.type_id, job.priority, job.queue_id, job.timeout_ms, job.ready_at, job.due_at, job.started_at,
               NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea
          FROM unhandled AS job
         UNION ALL
        SELECT 3::smallint, job.tenant_id, job.job_id, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks,
               job.type_id, job.priority, job.queue_id, job.timeout_ms, job.ready_at, job.due_at, job.started_at,
               NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea
          FROM unnest(p_tenants, p_jobs) AS wanted (tenant_id, job_id)
          JOIN jobs AS job ON job.tenant_id = wanted.tenant_id AND job.job_id = wanted.job_id
         WHERE job.state IN (0, 4)
           AND job.due_at > now();
    END IF;
END
$$;

-- wake_waiting_v1: the next jobs that these tenants' gates have room for, marked woken. The caller holds the gates' locks, and
-- either claims what comes back in the same transaction or tells it by the outbox. The claim has the last word, so waking one
-- too many costs a record, never the limit.
CREATE FUNCTION wake_waiting_v1(p_tenants uuid[])
RETURNS TABLE (tenant_id uuid, job_id uuid, fence integer, type_id integer, priority smallint, queue_id smallint)
LANGUAGE sql AS $$
    WITH gate AS (
        -- A limit that was taken away leaves its gate open: the backlog leaves in portions.
        SELECT gates.tenant_id, COALESCE(gates.allowed - gates.used, 500) AS room
          FROM gates
         WHERE gates.kind = 1
           AND gates.tenant_id = ANY (p_tenants)
    ),
    head AS (
        SELECT seat.*
          FROM gate
          CROSS JOIN LATERAL (
              SELECT waiting.tenant_id, waiting.precedence, waiting.seq, waiting.woken_at
                FROM waiting
               WHERE waiting.tenant_id = gate.tenant_id
                 AND waiting.kind = 1
               ORDER BY waiting.precedence, waiting.seq
               LIMIT GREATEST(gate.room, 0)
          ) AS seat
    ),
    woken AS (
        UPDATE waiting
           SET woken_at = now()
          FROM head
         WHERE waiting.tenant_id = head.tenant_id
           AND waiting.kind = 1
           AND waiting.precedence = head.precedence
           AND waiting.seq = head.seq
           -- A woken job whose record was lost is woken again.
           AND (waiting.woken_at IS NULL OR waiting.woken_at < now() - interval '30 seconds')
        RETURNING waiting.tenant_id, waiting.job_id
    )
    SELECT job.tenant_id, job.job_id, job.fence, job.type_id, job.priority, job.queue_id
      FROM woken
      JOIN jobs AS job ON job.tenant_id = woken.tenant_id AND job.job_id = woken.job_id
$$;

-- finish_jobs_v1: move ended jobs out of the open table, but only for the worker that still holds each of them.
--   closed   job ids that this call ended; a missing one is superseded
--   already  job ids that the first try of this very call had ended
--   outbox   the row that tells it, NULL when nothing was closed
--   gated    whether gates were locked: then wake_waiting_v1 must follow in the same transaction
CREATE FUNCTION finish_jobs_v1(
    p_worker uuid, p_tenants uuid[], p_jobs uuid[], p_fences integer[], p_states smallint[], p_results bytea[], p_errors bytea[], p_reasons text[],
    p_events uuid[], p_batches uuid[], OUT closed uuid[], OUT already uuid[], OUT outbox bigint, OUT gated boolean
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM gates WHERE gates.kind = 1 AND gates.tenant_id = ANY (p_tenants) ORDER BY gates.tenant_id FOR UPDATE;
    gated := FOUND;

    WITH done AS (
        SELECT *
          FROM unnest(p_tenants, p_jobs, p_fences, p_states, p_results, p_errors, p_reasons, p_events)
            AS t (tenant_id, job_id, fence, state, result, error, reason, event_id)
    ),
    ended AS (
        DELETE FROM jobs AS job
         USING done
         WHERE job.tenant_id = done.tenant_id
           AND job.job_id = done.job_id
           AND job.fence = done.fence
           AND job.worker_id = p_worker
           AND job.state = 3
        RETURNING job.tenant_id, job.job_id, job.fence, job.started_at, job.type_id, job.priority, job.queue_id, job.attempt, job.losses, job.hooks,
                  done.state, done.result, done.error, done.reason, done.event_id
    ),
    kept AS (
        INSERT INTO job_results (tenant_id, job_id, event_id, worker_id, started_at, finished_at, fence, type_id, state, priority, queue_id,
                                 attempt, losses, reason, result, error)
        SELECT ended.tenant_id, ended.job_id, ended.event_id, p_worker, ended.started_at, uuid_extract_timestamp(ended.event_id), ended.fence,
               ended.type_id, ended.state, ended.priority, ended.queue_id,
               -- A lost job's last claim was no attempt.
               CASE WHEN ended.reason = 'worker_lost' THEN ended.attempt - 1 ELSE ended.attempt END,
               CASE WHEN ended.reason = 'worker_lost' THEN ended.losses + 1 ELSE ended.losses END,
               ended.reason, ended.result, ended.error
          FROM ended
    ),
    dead AS (
        INSERT INTO dead_letters (tenant_id, kind, ref, reason)
        SELECT ended.tenant_id, 1, ended.job_id, ended.reason
          FROM ended
         WHERE ended.reason IS NOT NULL
    ),
    freed AS (
        UPDATE gates
           SET used = gates.used - less.n
          FROM (SELECT ended.tenant_id, count(*) AS n FROM ended WHERE ended.hooks & 1 <> 0 GROUP BY ended.tenant_id) AS less
         WHERE gates.tenant_id = less.tenant_id
           AND gates.kind = 1
    ),
    forgotten AS (
        DELETE FROM cancel_requests AS request
         USING ended
         WHERE ended.hooks & 32 <> 0
           AND request.worker_id = p_worker
           AND request.tenant_id = ended.tenant_id
           AND request.job_id = ended.job_id
    ),
    told AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
        SELECT 3, array_agg(ended.tenant_id), array_agg(ended.job_id), array_agg(ended.fence)
          FROM ended
        HAVING count(*) > 0
        RETURNING outbox_id, ref_ids
    )
    SELECT told.ref_ids, told.outbox_id INTO closed, outbox FROM told;

    IF cardinality(p_batches) > 0 THEN
        DELETE FROM lease_batches WHERE batch_id = ANY (p_batches);
    END IF;

    IF closed IS NULL OR cardinality(closed) < cardinality(p_jobs) THEN
        SELECT array_agg(result.job_id) INTO already
          FROM unnest(p_tenants, p_jobs, p_fences) AS t (tenant_id, job_id, fence)
          JOIN job_results AS result ON result.tenant_id = t.tenant_id AND result.job_id = t.job_id AND result.fence = t.fence
         WHERE result.worker_id = p_worker
           AND result.job_id <> ALL (COALESCE(closed, '{}'));
    END IF;
END
$$;

-- turn_jobs_v1: a worker's whole turn in one round trip and one commit: forget what Kafka was told, end jobs, claim the next ones.
--   The first row has verdict 0 and the answer of finish_jobs_v1; the others are claim_jobs_v1's. For turns that free no
--   gate's place: those have to wake whoever waits in between.
CREATE FUNCTION turn_jobs_v1(
    p_worker uuid, p_ended_tenants uuid[], p_ended_jobs uuid[], p_fences integer[], p_states smallint[], p_results bytea[], p_errors bytea[],
    p_reasons text[], p_events uuid[], p_batches uuid[], p_told bigint[], p_batch uuid, p_tenants uuid[], p_jobs uuid[], p_types integer[],
    p_timeouts_ms integer[]
)
RETURNS TABLE (
    verdict smallint, tenant_id uuid, job_id uuid, fence integer, attempt smallint, max_attempts smallint, losses smallint, hooks smallint,
    type_id integer, priority smallint, queue_id smallint, timeout_ms integer, ready_at timestamptz, due_at timestamptz, started_at timestamptz,
    payload bytea, metadata bytea, retry bytea, trace bytea, closed uuid[], already uuid[], outbox bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF cardinality(p_jobs) > 0 THEN
        -- The heartbeat's lock comes before all others, as in the reaper.
        PERFORM 1 FROM workers WHERE worker_id = p_worker FOR KEY SHARE;
    END IF;
    IF cardinality(p_told) > 0 THEN
        DELETE FROM outbox WHERE outbox_id = ANY (p_told);
    END IF;
    IF cardinality(p_ended_jobs) > 0 THEN
        RETURN QUERY
        SELECT 0::smallint, NULL::uuid, NULL::uuid, NULL::integer, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint,
               NULL::integer, NULL::smallint, NULL::smallint, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz,
               NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea, ended.closed, ended.already, ended.outbox
          FROM finish_jobs_v1(p_worker, p_ended_tenants, p_ended_jobs, p_fences, p_states, p_results, p_errors, p_reasons, p_events, p_batches) AS ended;
    END IF;
    IF cardinality(p_jobs) > 0 THEN
        RETURN QUERY
        SELECT claim.*, NULL::uuid[], NULL::uuid[], NULL::bigint
          FROM claim_jobs_v1(p_worker, p_batch, p_tenants, p_jobs, p_types, p_timeouts_ms) AS claim;
    END IF;
END
$$;

-- release_jobs_v1: let go of held jobs that did not end: 1 a charged attempt to be retried, 2 a loss, 3 a hand-back, 4 a snooze.
--   p_due    when each may run again; NULL = at once. Up to an hour a delay topic carries it, above that its timer does.
--   released job ids that this call let go; a missing one is superseded
--   ready    outbox row of those that may run at once;   later  outbox row of those that travel through the delay topics
--   wanted   job ids left as they are because their cancel was asked for: the caller ends them as cancelled instead
CREATE FUNCTION release_jobs_v1(
    p_worker uuid, p_tenants uuid[], p_jobs uuid[], p_fences integer[], p_kinds smallint[], p_due timestamptz[], p_errors bytea[], p_batches uuid[],
    OUT released uuid[], OUT ready bigint, OUT later bigint, OUT wanted uuid[], OUT gated boolean
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM gates WHERE gates.kind = 1 AND gates.tenant_id = ANY (p_tenants) ORDER BY gates.tenant_id FOR UPDATE;
    gated := FOUND;

    WITH gone AS (
        SELECT *
          FROM unnest(p_tenants, p_jobs, p_fences, p_kinds, p_due, p_errors) AS t (tenant_id, job_id, fence, kind, due_at, error)
    ),
    freed_jobs AS (
        UPDATE jobs AS job
           SET state = CASE WHEN gone.due_at IS NULL THEN 2 WHEN gone.kind = 4 THEN 0 ELSE 4 END,
               due_at = gone.due_at,
               ready_at = COALESCE(gone.due_at, now()),
               worker_id = NULL,
               attempt = CASE WHEN gone.kind = 1 THEN job.attempt ELSE job.attempt - 1 END,
               losses = CASE WHEN gone.kind = 2 THEN job.losses + 1 ELSE job.losses END,
               -- No place in a gate any more; a job that was lost once runs alone from now on.
               hooks = (job.hooks & ~1) | CASE WHEN gone.kind = 2 THEN 64 ELSE 0 END
          FROM gone
         WHERE job.tenant_id = gone.tenant_id
           AND job.job_id = gone.job_id
           AND job.fence = gone.fence
           AND job.worker_id = p_worker
           AND job.state = 3
           AND job.hooks & 32 = 0
        RETURNING job.tenant_id, job.job_id, job.fence, job.started_at, job.due_at, old.attempt AS attempt_before, old.hooks AS hooks_before, gone.kind, gone.error
    ),
    kept AS (
        INSERT INTO job_attempts (tenant_id, job_id, fence, finished_at, started_at, next_at, worker_id, attempt, kind, error)
        SELECT freed.tenant_id, freed.job_id, freed.fence, clock_timestamp(), freed.started_at, freed.due_at, p_worker, freed.attempt_before, freed.kind, freed.error
          FROM freed_jobs AS freed
    ),
    timed AS (
        INSERT INTO timers (tenant_id, ref_id, kind, fence, due_at, poll_at)
        SELECT freed.tenant_id, freed.job_id, 1, freed.fence, freed.due_at,
               -- A record that a tier lost is late by five seconds, not for ever.
               CASE WHEN freed.due_at <= now() + interval '1 hour' THEN freed.due_at + interval '5 seconds' ELSE freed.due_at END
          FROM freed_jobs AS freed
         WHERE freed.due_at IS NOT NULL
            ON CONFLICT ON CONSTRAINT timers_pkey DO UPDATE SET fence = excluded.fence, due_at = excluded.due_at, poll_at = excluded.poll_at
    ),
    places AS (
        UPDATE gates
           SET used = gates.used - less.n
          FROM (SELECT freed.tenant_id, count(*) AS n FROM freed_jobs AS freed WHERE freed.hooks_before & 1 <> 0 GROUP BY freed.tenant_id) AS less
         WHERE gates.tenant_id = less.tenant_id
           AND gates.kind = 1
    ),
    told_ready AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
        SELECT 1, array_agg(freed.tenant_id), array_agg(freed.job_id), array_agg(freed.fence)
          FROM freed_jobs AS freed
         WHERE freed.due_at IS NULL
        HAVING count(*) > 0
        RETURNING outbox_id
    ),
    told_later AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
        SELECT 2, array_agg(freed.tenant_id), array_agg(freed.job_id), array_agg(freed.fence)
          FROM freed_jobs AS freed
         WHERE freed.due_at <= now() + interval '1 hour'
        HAVING count(*) > 0
        RETURNING outbox_id
    )
    SELECT (SELECT array_agg(freed.job_id) FROM freed_jobs AS freed), (SELECT outbox_id FROM told_ready), (SELECT outbox_id FROM told_later)
      INTO released, ready, later;

    IF released IS NULL OR cardinality(released) < cardinality(p_jobs) THEN
        SELECT array_agg(job.job_id) INTO wanted
          FROM unnest(p_tenants, p_jobs, p_fences) AS t (tenant_id, job_id, fence)
          JOIN jobs AS job ON job.tenant_id = t.tenant_id AND job.job_id = t.job_id AND job.fence = t.fence
         WHERE job.worker_id = p_worker
           AND job.state = 3
           AND job.hooks & 32 <> 0;
    END IF;

    IF cardinality(p_batches) > 0 THEN
        DELETE FROM lease_batches WHERE batch_id = ANY (p_batches);
    END IF;
END
$$;

-- cancel_job_v1: end a job that isn't running, or ask its holder to end it.
--   answer  cancelled (ended here; outbox tells it), requested (it runs; its worker is told with the next renewal), absent (not open)
CREATE FUNCTION cancel_job_v1(p_tenant uuid, p_job uuid, OUT answer text, OUT event_id uuid, OUT outbox bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    open jobs%ROWTYPE;
BEGIN
    SELECT * INTO open FROM jobs WHERE tenant_id = p_tenant AND job_id = p_job FOR UPDATE;
    IF NOT FOUND THEN
        answer := 'absent';
        RETURN;
    END IF;
    IF open.state = 3 THEN
        UPDATE jobs SET hooks = hooks | 32 WHERE tenant_id = p_tenant AND job_id = p_job;
        INSERT INTO cancel_requests (worker_id, tenant_id, job_id, fence) VALUES (open.worker_id, p_tenant, p_job, open.fence)
            ON CONFLICT ON CONSTRAINT cancel_requests_pkey DO UPDATE SET fence = excluded.fence;
        answer := 'requested';
        RETURN;
    END IF;
    event_id := uuidv7();
    DELETE FROM jobs WHERE tenant_id = p_tenant AND job_id = p_job;
    INSERT INTO job_results (tenant_id, job_id, event_id, started_at, finished_at, fence, type_id, state, priority, queue_id, attempt, losses)
    VALUES (p_tenant, p_job, event_id, open.started_at, uuid_extract_timestamp(event_id), open.fence, open.type_id, 7, open.priority, open.queue_id,
            open.attempt, open.losses);
    DELETE FROM waiting WHERE tenant_id = p_tenant AND job_id = p_job;
    DELETE FROM timers WHERE tenant_id = p_tenant AND ref_id = p_job;
    INSERT INTO outbox (kind, tenant_ids, ref_ids, fences) VALUES (3, ARRAY[p_tenant], ARRAY[p_job], ARRAY[open.fence]) RETURNING outbox_id INTO outbox;
    answer := 'cancelled';
END
$$;
