-- 0008_operators: what people who keep the system need: the owner's login sees what `barnabas verify` and `barnabas doctor` look at, and a redrive
-- may be spread over time.

-- The owner could always switch row security off; reading is all that it is given, so that nobody needs to.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenants', 'api_keys', 'job_attempts', 'timers', 'gates', 'waiting', 'backlogs', 'redrives', 'idempotency_keys', 'endpoints',
        'deliveries', 'delivery_attempts', 'cancel_requests', 'job_progress', 'jobs', 'job_payloads', 'job_payloads_kept', 'job_results', 'dead_letters',
        'ordering_keys', 'ordering']
    LOOP
        EXECUTE format('CREATE POLICY owner_looks ON %I FOR SELECT TO barnabas_owner USING (true)', name);
    END LOOP;
END
$$;

-- The engine tells which migrations a database has.
GRANT SELECT ON schema_migrations TO barnabas_engine;

-- Whoever redrives at a rate takes places in this row, over all processes and calls: the next free one is `next_at`, each is 1 / rate long.
CREATE TABLE redrive_paces (
    tenant_id uuid        NOT NULL,
    kind      smallint    NOT NULL,
    next_at   timestamptz NOT NULL,
    CONSTRAINT redrive_paces_pkey PRIMARY KEY (tenant_id, kind),
    CONSTRAINT redrive_paces_kind CHECK (kind BETWEEN 1 AND 2)
) WITH (fillfactor = 50);
COMMENT ON TABLE redrive_paces IS 'Until when each tenant''s redrives at a rate are spread: jobs (kind 1) and deliveries (kind 2)';
ALTER TABLE redrive_paces ENABLE ROW LEVEL SECURITY;
ALTER TABLE redrive_paces FORCE ROW LEVEL SECURITY;
CREATE POLICY engine_batches ON redrive_paces TO barnabas_engine USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON redrive_paces TO barnabas_api USING (tenant_id = current_tenant_v1()) WITH CHECK (tenant_id = current_tenant_v1());
CREATE POLICY owner_looks ON redrive_paces FOR SELECT TO barnabas_owner USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON redrive_paces TO barnabas_engine;

-- redrive_job_v2: a new job in the place of a dead one, with what was submitted then; the dead letter is closed, the old job stays as it is.
--   One with an ordering key takes the old place in its line: it runs before all that came later and haven't had their turn. Like an accepted
--   job it is blocked while another of its line has the turn, and parked behind its tenant's backlog; then there is no outbox row.
--   answer  redriven (made here), open (an earlier redrive's job, still open), closed (the dead letter is closed and its job, if any, ended),
--           not_failed (open, succeeded or cancelled), absent
CREATE FUNCTION redrive_job_v2(p_tenant uuid, p_job uuid, p_new uuid, p_due timestamptz, OUT answer text, OUT job_id uuid, OUT outbox bigint, OUT type_id integer,
                               OUT priority smallint, OUT queue_id smallint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    sent job_payloads%ROWTYPE;
    ended smallint;
    old_seq bigint;
    mark smallint := 0;
    due CONSTANT timestamptz := CASE WHEN p_due > now() THEN p_due END;
BEGIN
    -- Whoever deletes the dead letter makes the job; a second caller waits here and then finds the first one's answer.
    DELETE FROM dead_letters WHERE tenant_id = p_tenant AND kind = 1 AND ref = p_job RETURNING order_seq INTO old_seq;
    IF FOUND THEN
        SELECT found.* INTO STRICT sent
          FROM (SELECT day.* FROM job_payloads AS day WHERE day.tenant_id = p_tenant AND day.job_id = p_job
                 UNION ALL
                SELECT kept.* FROM job_payloads_kept AS kept WHERE kept.tenant_id = p_tenant AND kept.job_id = p_job
                 LIMIT 1) AS found;
        IF due IS NULL THEN
            PERFORM 1 FROM backlogs WHERE backlogs.tenant_id = p_tenant AND backlogs.queue_id = sent.queue_id FOR KEY SHARE;
            IF FOUND THEN
                mark := 128;
            END IF;
        END IF;
        IF sent.ordering_key IS NOT NULL THEN
            INSERT INTO ordering_keys (tenant_id, ordering_key, job_id) VALUES (p_tenant, sent.ordering_key, p_new)
                ON CONFLICT ON CONSTRAINT ordering_keys_pkey DO UPDATE SET job_id = p_new WHERE ordering_keys.job_id = p_job;
            -- The dead letter's own row where it has held the line, else its place of then.
            UPDATE ordering SET job_id = p_new WHERE ordering.tenant_id = p_tenant AND ordering.job_id = p_job;
            IF NOT FOUND THEN
                INSERT INTO ordering (tenant_id, ordering_key, seq, job_id) VALUES (p_tenant, sent.ordering_key, old_seq, p_new);
            END IF;
            SELECT CASE WHEN line.job_id = p_new THEN mark | 2 ELSE 3 END INTO mark
              FROM ordering_keys AS line
             WHERE line.tenant_id = p_tenant
               AND line.ordering_key = sent.ordering_key;
        END IF;
        INSERT INTO jobs (tenant_id, job_id, ready_at, due_at, type_id, timeout_ms, state, priority, queue_id, max_attempts, hooks)
        VALUES (p_tenant, p_new, COALESCE(due, now()), due, sent.type_id, sent.timeout_ms,
                CASE WHEN mark & 1 <> 0 THEN 1 WHEN due IS NOT NULL THEN 0 ELSE 2 END, sent.priority, sent.queue_id, sent.max_attempts, mark & 130);
        INSERT INTO job_payloads (tenant_id, job_id, redrive_of, created_at, run_at, type_id, timeout_ms, priority, queue_id, max_attempts, payload, payload_ref,
                                  metadata, retry, trace, ordering_key)
        VALUES (p_tenant, p_new, p_job, uuid_extract_timestamp(p_new), due, sent.type_id, sent.timeout_ms, sent.priority, sent.queue_id, sent.max_attempts,
                sent.payload, sent.payload_ref, sent.metadata, sent.retry, sent.trace, sent.ordering_key);
        INSERT INTO redrives (tenant_id, redrive_of, job_id) VALUES (p_tenant, p_job, p_new);
        IF mark & 128 <> 0 THEN
            INSERT INTO waiting (tenant_id, kind, line, precedence, job_id) VALUES (p_tenant, 4, sent.queue_id, 3 - sent.priority, p_new);
        END IF;
        IF due IS NOT NULL AND mark & 1 = 0 THEN
            -- A blocked job's time is looked at when its turn comes.
            INSERT INTO timers (tenant_id, ref_id, kind, fence, due_at, poll_at) VALUES (p_tenant, p_new, 1, 0, due, due);
        END IF;
        IF due IS NULL AND mark & 129 = 0 THEN
            INSERT INTO outbox (kind, tenant_ids, ref_ids, fences) VALUES (1, ARRAY[p_tenant], ARRAY[p_new], ARRAY[0]) RETURNING outbox_id INTO outbox;
        END IF;
        answer := 'redriven';
        job_id := p_new;
        type_id := sent.type_id;
        priority := sent.priority;
        queue_id := sent.queue_id;
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

-- redrive_delivery_v2: try a dead delivery again: the same row, its attempts counting on; the dead letter is closed.
--   p_due   when it may be tried at the earliest, as redrive_job_v2's
--   answer  redriven, closed (no dead letter is open for it), unwanted (its endpoint was deleted or is disabled), absent
CREATE FUNCTION redrive_delivery_v2(p_tenant uuid, p_delivery uuid, p_due timestamptz, OUT answer text, OUT outbox bigint, OUT event_id uuid, OUT endpoint_id uuid,
                                    OUT fence integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted boolean;
    due CONSTANT timestamptz := CASE WHEN p_due > now() THEN p_due END;
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
       SET state = CASE WHEN due IS NULL THEN 0 ELSE 3 END, due_at = due, finished_at = NULL, worker_id = NULL
     WHERE dead.tenant_id = p_tenant
       AND dead.event_id = redrive_delivery_v2.event_id
       AND dead.endpoint_id = redrive_delivery_v2.endpoint_id
       AND dead.state = 5;
    IF due IS NOT NULL THEN
        INSERT INTO timers (tenant_id, ref_id, endpoint_id, kind, fence, due_at, poll_at) VALUES (p_tenant, event_id, endpoint_id, 2, fence, due, due)
            ON CONFLICT ON CONSTRAINT timers_pkey DO UPDATE SET fence = excluded.fence, due_at = excluded.due_at, poll_at = excluded.poll_at;
    ELSE
        INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences)
        VALUES (4, ARRAY[p_tenant], ARRAY[event_id], ARRAY[endpoint_id], ARRAY[fence])
        RETURNING outbox_id INTO outbox;
    END IF;
    answer := 'redriven';
END
$$;
