-- 0004_submissions: what ingest does in one round trip: accept jobs, with and without idempotency keys, and send dead letters round again.

-- accept_jobs_v1: a flush of accepted jobs: the open rows, what was submitted, timers of those due later, one outbox row for those ready now.
--   Arrays that hold nothing but NULLs (or default values) may be empty: unnest pads them.
--   returns  the outbox row that tells Kafka, NULL when all of them are due later
CREATE FUNCTION accept_jobs_v1(
    p_tenants uuid[], p_jobs uuid[], p_types integer[], p_priorities smallint[], p_queues smallint[], p_timeouts integer[], p_max_attempts smallint[],
    p_due timestamptz[], p_payloads bytea[], p_metadata bytea[], p_retries bytea[], p_traces bytea[], p_redrives uuid[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    outbox bigint;
BEGIN
    WITH new AS (
        SELECT t.tenant_id, t.job_id, t.type_id, t.priority, COALESCE(t.queue_id, 0::smallint) AS queue_id, t.timeout_ms, t.max_attempts, t.due_at,
               t.payload, t.metadata, t.retry, t.trace, t.redrive_of
          FROM unnest(p_tenants, p_jobs, p_types, p_priorities, p_queues, p_timeouts, p_max_attempts, p_due, p_payloads, p_metadata, p_retries, p_traces,
                      p_redrives)
            AS t (tenant_id, job_id, type_id, priority, queue_id, timeout_ms, max_attempts, due_at, payload, metadata, retry, trace, redrive_of)
    ),
    opened AS (
        INSERT INTO jobs (tenant_id, job_id, ready_at, due_at, type_id, timeout_ms, state, priority, queue_id, max_attempts)
        SELECT new.tenant_id, new.job_id, COALESCE(new.due_at, now()), new.due_at, new.type_id, new.timeout_ms,
               CASE WHEN new.due_at IS NULL THEN 2 ELSE 0 END, new.priority, new.queue_id, new.max_attempts
          FROM new
    ),
    sent AS (
        -- The id's own time, so that the answer which was given before this row could be read says the same.
        INSERT INTO job_payloads (tenant_id, job_id, redrive_of, created_at, run_at, type_id, timeout_ms, priority, queue_id, max_attempts, payload,
                                  metadata, retry, trace)
        SELECT new.tenant_id, new.job_id, new.redrive_of, uuid_extract_timestamp(new.job_id), new.due_at, new.type_id, new.timeout_ms, new.priority,
               new.queue_id, new.max_attempts, new.payload, new.metadata, new.retry, new.trace
          FROM new
    ),
    timed AS (
        INSERT INTO timers (tenant_id, ref_id, kind, fence, due_at, poll_at)
        SELECT new.tenant_id, new.job_id, 1, 0, new.due_at, new.due_at
          FROM new
         WHERE new.due_at IS NOT NULL
    ),
    told AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
        SELECT 1, array_agg(new.tenant_id), array_agg(new.job_id), array_agg(0)
          FROM new
         WHERE new.due_at IS NULL
        HAVING count(*) > 0
        RETURNING outbox_id
    )
    SELECT told.outbox_id INTO outbox FROM told;
    RETURN outbox;
END
$$;

-- accept_keyed_jobs_v1: the same for jobs with an idempotency key: keys first, in key order, and only those that won theirs become jobs.
--   Whoever inserts a key that another transaction is inserting waits here for its end: so equal submissions at once are one job.
--   rows  one per submission that has an answer: its place (from 1), the job behind the key, that job's fingerprint, and whether this call made it;
--         outbox is the same in every row. A place without a row lost its key to the daily cleaning meanwhile: submit again.
CREATE FUNCTION accept_keyed_jobs_v1(
    p_keys text[], p_fingerprints bytea[],
    p_tenants uuid[], p_jobs uuid[], p_types integer[], p_priorities smallint[], p_queues smallint[], p_timeouts integer[], p_max_attempts smallint[],
    p_due timestamptz[], p_payloads bytea[], p_metadata bytea[], p_retries bytea[], p_traces bytea[], p_redrives uuid[]
) RETURNS TABLE (place bigint, job_id uuid, fingerprint bytea, made boolean, outbox bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    outbox_made bigint;
    won bigint[];
BEGIN
    INSERT INTO idempotency_keys (tenant_id, key, job_id, fingerprint)
    SELECT t.tenant_id, t.key, t.job_id, t.fingerprint
      FROM unnest(p_tenants, p_keys, p_jobs, p_fingerprints) WITH ORDINALITY AS t (tenant_id, key, job_id, fingerprint, place)
     ORDER BY t.tenant_id, t.key, t.place
        ON CONFLICT DO NOTHING;

    -- A statement of its own, so that it sees what those whom the insert waited for have committed.
    SELECT array_agg(t.place ORDER BY t.place) INTO won
      FROM unnest(p_tenants, p_keys, p_jobs) WITH ORDINALITY AS t (tenant_id, key, job_id, place)
      JOIN idempotency_keys AS held ON held.tenant_id = t.tenant_id AND held.key = t.key
     WHERE held.job_id = t.job_id;

    IF won IS NOT NULL THEN
        SELECT accept_jobs_v1(array_agg(t.tenant_id), array_agg(t.job_id), array_agg(t.type_id), array_agg(t.priority), array_agg(t.queue_id),
                              array_agg(t.timeout_ms), array_agg(t.max_attempts), array_agg(t.due_at), array_agg(t.payload), array_agg(t.metadata),
                              array_agg(t.retry), array_agg(t.trace), array_agg(t.redrive_of))
          INTO outbox_made
          FROM unnest(p_tenants, p_jobs, p_types, p_priorities, p_queues, p_timeouts, p_max_attempts, p_due, p_payloads, p_metadata, p_retries, p_traces,
                      p_redrives) WITH ORDINALITY
            AS t (tenant_id, job_id, type_id, priority, queue_id, timeout_ms, max_attempts, due_at, payload, metadata, retry, trace, redrive_of, place)
         WHERE t.place = ANY (won);
    END IF;

    RETURN QUERY
    SELECT t.place, held.job_id, held.fingerprint, held.job_id = t.job_id, outbox_made
      FROM unnest(p_tenants, p_keys, p_jobs) WITH ORDINALITY AS t (tenant_id, key, job_id, place)
      JOIN idempotency_keys AS held ON held.tenant_id = t.tenant_id AND held.key = t.key
     ORDER BY t.place;
END
$$;

-- redrive_job_v1: a new job in the place of a dead one, with what was submitted then; the dead letter is closed, the old job stays as it is.
--   answer  redriven (made here), open (an earlier redrive's job, still open), closed (the dead letter is closed and its job, if any, ended),
--           not_failed (open, succeeded or cancelled), absent
CREATE FUNCTION redrive_job_v1(p_tenant uuid, p_job uuid, p_new uuid, OUT answer text, OUT job_id uuid, OUT outbox bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    sent job_payloads%ROWTYPE;
    ended smallint;
BEGIN
    -- Whoever deletes the dead letter makes the job; a second caller waits here and then finds the first one's answer.
    DELETE FROM dead_letters WHERE tenant_id = p_tenant AND kind = 1 AND ref = p_job;
    IF FOUND THEN
        SELECT found.* INTO STRICT sent
          FROM (SELECT day.* FROM job_payloads AS day WHERE day.tenant_id = p_tenant AND day.job_id = p_job
                 UNION ALL
                SELECT kept.* FROM job_payloads_kept AS kept WHERE kept.tenant_id = p_tenant AND kept.job_id = p_job
                 LIMIT 1) AS found;
        INSERT INTO jobs (tenant_id, job_id, ready_at, type_id, timeout_ms, state, priority, queue_id, max_attempts)
        VALUES (p_tenant, p_new, now(), sent.type_id, sent.timeout_ms, 2, sent.priority, sent.queue_id, sent.max_attempts);
        INSERT INTO job_payloads (tenant_id, job_id, redrive_of, created_at, type_id, timeout_ms, priority, queue_id, max_attempts, payload, payload_ref,
                                  metadata, retry, trace)
        VALUES (p_tenant, p_new, p_job, uuid_extract_timestamp(p_new), sent.type_id, sent.timeout_ms, sent.priority, sent.queue_id, sent.max_attempts,
                sent.payload, sent.payload_ref, sent.metadata, sent.retry, sent.trace);
        INSERT INTO redrives (tenant_id, redrive_of, job_id) VALUES (p_tenant, p_job, p_new);
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences) VALUES (1, ARRAY[p_tenant], ARRAY[p_new], ARRAY[0]) RETURNING outbox_id INTO outbox;
        answer := 'redriven';
        job_id := p_new;
        RETURN;
    END IF;

    SELECT made.job_id INTO job_id
      FROM redrives AS made
      JOIN jobs AS open ON open.tenant_id = made.tenant_id AND open.job_id = made.job_id
     WHERE made.tenant_id = p_tenant
       AND made.redrive_of = p_job;
    IF FOUND THEN
        answer := 'open';
        RETURN;
    END IF;

    SELECT result.state INTO ended FROM job_results AS result WHERE result.tenant_id = p_tenant AND result.job_id = p_job;
    IF FOUND THEN
        answer := CASE ended WHEN 6 THEN 'closed' ELSE 'not_failed' END;
    ELSIF EXISTS (SELECT 1 FROM jobs AS open WHERE open.tenant_id = p_tenant AND open.job_id = p_job) THEN
        answer := 'not_failed';
    ELSE
        answer := 'absent';
    END IF;
END
$$;

-- redrive_delivery_v1: try a dead delivery again: the same row, its attempts counting on; the dead letter is closed.
--   answer  redriven, closed (no dead letter is open for it), unwanted (its endpoint was deleted or is disabled), absent
CREATE FUNCTION redrive_delivery_v1(p_tenant uuid, p_delivery uuid, OUT answer text, OUT outbox bigint, OUT event_id uuid, OUT endpoint_id uuid,
                                    OUT fence integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted boolean;
BEGIN
    SELECT dead.event_id, dead.endpoint_id, dead.fence, url.endpoint_id IS NOT NULL
      INTO event_id, endpoint_id, fence, wanted
      FROM deliveries AS dead
      LEFT JOIN endpoints AS url ON url.tenant_id = dead.tenant_id AND url.endpoint_id = dead.endpoint_id AND url.deleted_at IS NULL
                                AND url.disabled_at IS NULL
     WHERE dead.tenant_id = p_tenant
       AND dead.delivery_id = p_delivery;
    IF NOT FOUND THEN
        answer := 'absent';
        RETURN;
    END IF;
    IF NOT wanted THEN
        answer := 'unwanted';
        RETURN;
    END IF;
    DELETE FROM dead_letters WHERE tenant_id = p_tenant AND kind = 2 AND ref = p_delivery;
    IF NOT FOUND THEN
        answer := 'closed';
        RETURN;
    END IF;
    UPDATE deliveries AS dead
       SET state = 0, due_at = NULL, finished_at = NULL, worker_id = NULL
     WHERE dead.tenant_id = p_tenant
       AND dead.event_id = redrive_delivery_v1.event_id
       AND dead.endpoint_id = redrive_delivery_v1.endpoint_id
       AND dead.state = 5;
    INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences)
    VALUES (4, ARRAY[p_tenant], ARRAY[event_id], ARRAY[endpoint_id], ARRAY[fence])
    RETURNING outbox_id INTO outbox;
    answer := 'redriven';
END
$$;
