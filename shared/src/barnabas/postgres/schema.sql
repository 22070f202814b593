-- The schema that all migrations together make; day partitions are left out.
-- Generated from the migrations by `make generate`. Add a migration instead of changing this.

CREATE TYPE public.start_log AS (
	at_entries timestamp with time zone[],
	counts integer[]
);

CREATE FUNCTION public.accept_jobs_v1(p_tenants uuid[], p_jobs uuid[], p_types integer[], p_priorities smallint[], p_queues smallint[], p_timeouts integer[], p_max_attempts smallint[], p_due timestamp with time zone[], p_payloads bytea[], p_metadata bytea[], p_retries bytea[], p_traces bytea[], p_orders text[], OUT outbox bigint, OUT marks smallint[], OUT tenants uuid[], OUT allowed integer[], OUT windows real[], OUT rooms integer[], OUT seconds double precision[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    limits record;
    backlog_tenants uuid[];
    backlog_queues smallint[];
    noted smallint[];
BEGIN
    IF cardinality(p_tenants) = 1 THEN
        p_tenants := array_fill(p_tenants[1], ARRAY[cardinality(p_jobs)]);
    END IF;
    IF cardinality(p_types) = 1 THEN
        p_types := array_fill(p_types[1], ARRAY[cardinality(p_jobs)]);
    END IF;
    IF cardinality(p_priorities) = 1 THEN
        p_priorities := array_fill(p_priorities[1], ARRAY[cardinality(p_jobs)]);
    END IF;

    PERFORM 1 FROM gates WHERE gates.kind = 3 AND gates.tenant_id = ANY (p_tenants) AND gates.starts_allowed IS NOT NULL ORDER BY gates.tenant_id FOR UPDATE;
    IF FOUND THEN
        SELECT * INTO limits FROM limit_submissions_v1(p_tenants, clock_timestamp());
        noted := limits.marks;
        tenants := limits.tenants;
        allowed := limits.allowed;
        windows := limits.windows;
        rooms := limits.rooms;
        seconds := limits.seconds;
    END IF;

    -- Mostly there is none at all, and that is cheaper to see than that none is of these tenants.
    IF EXISTS (SELECT 1 FROM backlogs) THEN
        -- Whoever finds a backlog empty deletes its row, and waits for us: what is parked here is found by the next look.
        SELECT array_agg(line.tenant_id), array_agg(line.queue_id) INTO backlog_tenants, backlog_queues
          FROM (
              SELECT backlogs.tenant_id, backlogs.queue_id
                FROM backlogs
               WHERE backlogs.tenant_id = ANY (p_tenants)
               ORDER BY backlogs.tenant_id, backlogs.queue_id
                 FOR KEY SHARE
          ) AS line;
    END IF;

    IF cardinality(p_orders) > 0 THEN
        -- The first of a line that isn't there gets the turn. A line that is there is only locked: the condition is never true.
        INSERT INTO ordering_keys (tenant_id, ordering_key, job_id)
        SELECT DISTINCT ON (t.tenant_id, t.ordering_key) t.tenant_id, t.ordering_key, t.job_id
          FROM unnest(p_tenants, p_jobs, p_orders, noted) WITH ORDINALITY AS t (tenant_id, job_id, ordering_key, mark, place)
         WHERE t.ordering_key IS NOT NULL
           AND t.mark IS NULL
         ORDER BY t.tenant_id, t.ordering_key, t.place
            ON CONFLICT ON CONSTRAINT ordering_keys_pkey DO UPDATE SET job_id = ordering_keys.job_id WHERE ordering_keys.job_id IS NULL;

        INSERT INTO ordering (tenant_id, ordering_key, job_id)
        SELECT t.tenant_id, t.ordering_key, t.job_id
          FROM unnest(p_tenants, p_jobs, p_orders, noted) WITH ORDINALITY AS t (tenant_id, job_id, ordering_key, mark, place)
         WHERE t.ordering_key IS NOT NULL
           AND t.mark IS NULL
         ORDER BY t.place;

        SELECT array_agg(CASE WHEN t.mark IS NOT NULL OR t.ordering_key IS NULL THEN t.mark WHEN line.job_id = t.job_id THEN 2 ELSE 3 END ORDER BY t.place)
          INTO noted
          FROM unnest(p_tenants, p_jobs, p_orders, noted) WITH ORDINALITY AS t (tenant_id, job_id, ordering_key, mark, place)
          LEFT JOIN ordering_keys AS line ON line.tenant_id = t.tenant_id AND line.ordering_key = t.ordering_key;
    END IF;

    IF backlog_tenants IS NOT NULL THEN
        SELECT array_agg(CASE WHEN line.tenant_id IS NULL OR t.due_at IS NOT NULL OR COALESCE(t.mark, 0) & 1025 <> 0 THEN t.mark
                              ELSE COALESCE(t.mark, 0) | 128 END ORDER BY t.place)
          INTO noted
          FROM unnest(p_tenants, p_queues, p_due, noted) WITH ORDINALITY AS t (tenant_id, queue_id, due_at, mark, place)
          LEFT JOIN unnest(backlog_tenants, backlog_queues) AS line (tenant_id, queue_id)
                 ON line.tenant_id = t.tenant_id AND line.queue_id = COALESCE(t.queue_id, 0);

        INSERT INTO waiting (tenant_id, kind, line, precedence, job_id)
        SELECT t.tenant_id, 4, COALESCE(t.queue_id, 0), 3 - t.priority, t.job_id
          FROM unnest(p_tenants, p_jobs, p_priorities, p_queues, noted) WITH ORDINALITY AS t (tenant_id, job_id, priority, queue_id, mark, place)
         WHERE t.mark & 128 <> 0
         ORDER BY t.place;
    END IF;
    marks := noted;

    WITH new AS (
        SELECT t.tenant_id, t.job_id, t.type_id, t.priority, COALESCE(t.queue_id, 0::smallint) AS queue_id, t.timeout_ms, t.max_attempts, t.due_at,
               t.payload, t.metadata, t.retry, t.trace, t.ordering_key, COALESCE(t.mark, 0::smallint) AS mark
          FROM unnest(p_tenants, p_jobs, p_types, p_priorities, p_queues, p_timeouts, p_max_attempts, p_due, p_payloads, p_metadata, p_retries, p_traces,
                      p_orders, noted)
            AS t (tenant_id, job_id, type_id, priority, queue_id, timeout_ms, max_attempts, due_at, payload, metadata, retry, trace, ordering_key, mark)
         WHERE t.mark IS NULL
            OR t.mark <> 1024
    ),
    opened AS (
        INSERT INTO jobs (tenant_id, job_id, ready_at, due_at, type_id, timeout_ms, state, priority, queue_id, max_attempts, hooks)
        SELECT new.tenant_id, new.job_id, COALESCE(new.due_at, now()), new.due_at, new.type_id, new.timeout_ms,
               CASE WHEN new.mark & 1 <> 0 THEN 1 WHEN new.due_at IS NULL THEN 2 ELSE 0 END, new.priority, new.queue_id, new.max_attempts, new.mark & 130
          FROM new
    ),
    sent AS (
        -- The id's own time, so that the answer which was given before this row could be read says the same.
        INSERT INTO job_payloads (tenant_id, job_id, created_at, run_at, type_id, timeout_ms, priority, queue_id, max_attempts, payload, metadata, retry,
                                  trace, ordering_key)
        SELECT new.tenant_id, new.job_id, uuid_extract_timestamp(new.job_id), new.due_at, new.type_id, new.timeout_ms, new.priority, new.queue_id,
               new.max_attempts, new.payload, new.metadata, new.retry, new.trace, new.ordering_key
          FROM new
    ),
    timed AS (
        -- A blocked job's time is looked at when its turn comes.
        INSERT INTO timers (tenant_id, ref_id, kind, fence, due_at, poll_at)
        SELECT new.tenant_id, new.job_id, 1, 0, new.due_at, new.due_at
          FROM new
         WHERE new.due_at IS NOT NULL
           AND new.mark & 1 = 0
    ),
    told AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
        SELECT 1, array_agg(new.tenant_id), array_agg(new.job_id), array_agg(0)
          FROM new
         WHERE new.due_at IS NULL
           AND new.mark & 129 = 0
        HAVING count(*) > 0
        RETURNING outbox_id
    )
    SELECT told.outbox_id INTO outbox FROM told;
END
$$;

CREATE FUNCTION public.accept_keyed_jobs_v1(p_keys text[], p_fingerprints bytea[], p_tenants uuid[], p_jobs uuid[], p_types integer[], p_priorities smallint[], p_queues smallint[], p_timeouts integer[], p_max_attempts smallint[], p_due timestamp with time zone[], p_payloads bytea[], p_metadata bytea[], p_retries bytea[], p_traces bytea[], p_orders text[], OUT outbox bigint, OUT marks smallint[], OUT tenants uuid[], OUT allowed integer[], OUT windows real[], OUT rooms integer[], OUT seconds double precision[], OUT holders uuid[], OUT fingerprints bytea[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    accepted record;
    won bigint[];
    noted smallint[];
BEGIN
    IF cardinality(p_tenants) = 1 THEN
        p_tenants := array_fill(p_tenants[1], ARRAY[cardinality(p_jobs)]);
    END IF;
    IF cardinality(p_types) = 1 THEN
        p_types := array_fill(p_types[1], ARRAY[cardinality(p_jobs)]);
    END IF;
    IF cardinality(p_priorities) = 1 THEN
        p_priorities := array_fill(p_priorities[1], ARRAY[cardinality(p_jobs)]);
    END IF;

    INSERT INTO idempotency_keys (tenant_id, key, job_id, fingerprint)
    SELECT t.tenant_id, t.key, t.job_id, t.fingerprint
      FROM unnest(p_tenants, p_keys, p_jobs, p_fingerprints) WITH ORDINALITY AS t (tenant_id, key, job_id, fingerprint, place)
     WHERE t.key IS NOT NULL
     ORDER BY t.tenant_id, t.key, t.place
        ON CONFLICT DO NOTHING;

    -- A statement of its own, so that it sees what those whom the insert waited for have committed.
    SELECT array_agg(t.place ORDER BY t.place) INTO won
      FROM unnest(p_tenants, p_keys, p_jobs) WITH ORDINALITY AS t (tenant_id, key, job_id, place)
      LEFT JOIN idempotency_keys AS held ON held.tenant_id = t.tenant_id AND held.key = t.key
     WHERE t.key IS NULL
        OR held.job_id = t.job_id;

    IF cardinality(won) = cardinality(p_jobs) THEN
        -- Nearly always: the arrays as they came (17 instead of 30 us a job, with the answer that needs no join).
        SELECT * INTO accepted FROM accept_jobs_v1(p_tenants, p_jobs, p_types, p_priorities, p_queues, p_timeouts, p_max_attempts, p_due, p_payloads,
                                                   p_metadata, p_retries, p_traces, p_orders);
    ELSIF won IS NOT NULL THEN
        SELECT made.* INTO accepted
          FROM (
              SELECT array_agg(t.tenant_id ORDER BY t.place) AS tenant_ids, array_agg(t.job_id ORDER BY t.place) AS job_ids,
                     array_agg(t.type_id ORDER BY t.place) AS type_ids, array_agg(t.priority ORDER BY t.place) AS priorities,
                     array_agg(t.queue_id ORDER BY t.place) AS queue_ids, array_agg(t.timeout_ms ORDER BY t.place) AS timeouts_ms,
                     array_agg(t.max_attempts ORDER BY t.place) AS max_attempts, array_agg(t.due_at ORDER BY t.place) AS due_at,
                     array_agg(t.payload ORDER BY t.place) AS payloads, array_agg(t.metadata ORDER BY t.place) AS metadata,
                     array_agg(t.retry ORDER BY t.place) AS retries, array_agg(t.trace ORDER BY t.place) AS traces,
                     CASE WHEN cardinality(p_orders) > 0 THEN array_agg(t.ordering_key ORDER BY t.place) END AS ordering_keys
                FROM unnest(p_tenants, p_jobs, p_types, p_priorities, p_queues, p_timeouts, p_max_attempts, p_due, p_payloads, p_metadata, p_retries, p_traces,
                            p_orders) WITH ORDINALITY
                  AS t (tenant_id, job_id, type_id, priority, queue_id, timeout_ms, max_attempts, due_at, payload, metadata, retry, trace, ordering_key, place)
               WHERE t.place = ANY (won)
          ) AS new
          CROSS JOIN LATERAL accept_jobs_v1(new.tenant_ids, new.job_ids, new.type_ids, new.priorities, new.queue_ids, new.timeouts_ms, new.max_attempts,
                                            new.due_at, new.payloads, new.metadata, new.retries, new.traces, new.ordering_keys) AS made;
    END IF;

    IF won IS NOT NULL THEN
        outbox := accepted.outbox;
        tenants := accepted.tenants;
        allowed := accepted.allowed;
        windows := accepted.windows;
        rooms := accepted.rooms;
        seconds := accepted.seconds;
        noted := accepted.marks;
    END IF;

    IF noted IS NOT NULL THEN
        DELETE FROM idempotency_keys AS held
         USING unnest(won, noted) AS refused (place, mark)
         WHERE refused.mark = 1024
           AND held.tenant_id = p_tenants[refused.place]
           AND held.key = p_keys[refused.place];
        SELECT array_agg(CASE WHEN EXISTS (SELECT 1
                                             FROM unnest(won, noted) AS refused (place, mark)
                                            WHERE refused.mark = 1024
                                              AND (refused.place = t.place OR (p_tenants[refused.place] = t.tenant_id AND p_keys[refused.place] = t.key)))
                              THEN 1024
                              ELSE own.mark
                         END ORDER BY t.place)
          INTO marks
          FROM unnest(p_tenants, p_keys) WITH ORDINALITY AS t (tenant_id, key, place)
          LEFT JOIN unnest(won, noted) AS own (place, mark) ON own.place = t.place;
    END IF;

    IF noted IS NULL AND cardinality(won) = cardinality(p_jobs) THEN
        RETURN;
    END IF;
    SELECT array_agg(CASE WHEN t.key IS NULL THEN t.job_id ELSE held.job_id END ORDER BY t.place), array_agg(held.fingerprint ORDER BY t.place)
      INTO holders, fingerprints
      FROM unnest(p_tenants, p_keys, p_jobs) WITH ORDINALITY AS t (tenant_id, key, job_id, place)
      LEFT JOIN idempotency_keys AS held ON held.tenant_id = t.tenant_id AND held.key = t.key;
END
$$;

CREATE FUNCTION public.admit_jobs_v1(p_tenants uuid[], p_jobs uuid[], p_types integer[], p_at timestamp with time zone, OUT tenants uuid[], OUT jobs uuid[], OUT parked uuid[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
    WITH asked AS (
        SELECT t.tenant_id, t.job_id, min(t.ord) AS ord
          FROM unnest(p_tenants, p_jobs) WITH ORDINALITY AS t (tenant_id, job_id, ord)
         WHERE t.job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
         GROUP BY t.tenant_id, t.job_id
         ORDER BY t.tenant_id, t.job_id
    ),
    locked AS MATERIALIZED (
        SELECT job.*, asked.ord
          FROM asked
          CROSS JOIN LATERAL (
              SELECT jobs.tenant_id, jobs.job_id, jobs.type_id, jobs.priority, jobs.hooks
                FROM jobs
               WHERE jobs.tenant_id = asked.tenant_id
                 AND jobs.job_id = asked.job_id
                 AND (jobs.state = 2 OR (jobs.state IN (0, 4) AND jobs.due_at <= now()))
                 AND jobs.type_id = ANY (p_types)
                 FOR UPDATE
          ) AS job
    ),
    able AS (
        SELECT locked.*, seat.precedence, seat.seq,
               of_type.room AS type_room,
               of_type.seq IS NULL OR (seat.kind = 2 AND seat.woken_at IS NOT NULL)
                   OR COALESCE((seat.precedence, seat.seq) <= (of_type.precedence, of_type.seq), false) AS type_turn,
               of_tenant.room AS tenant_room,
               of_tenant.seq IS NULL OR (seat.kind = 1 AND seat.woken_at IS NOT NULL)
                   OR COALESCE((seat.precedence, seat.seq) <= (of_tenant.precedence, of_tenant.seq), false) AS tenant_turn
          FROM locked
          LEFT JOIN waiting AS seat ON locked.hooks & 128 <> 0 AND seat.tenant_id = locked.tenant_id AND seat.job_id = locked.job_id
          LEFT JOIN LATERAL gate_line_v1(locked.tenant_id, 2::smallint, locked.type_id, p_at) AS of_type ON true
          LEFT JOIN LATERAL gate_line_v1(locked.tenant_id, 1::smallint, 0, p_at) AS of_tenant ON true
    ),
    typed AS (
        SELECT able.*, row_number() OVER (PARTITION BY able.tenant_id, able.type_id, able.type_turn
                                              ORDER BY able.precedence NULLS LAST, able.seq, able.priority DESC, able.ord) AS type_rank
          FROM able
    ),
    passed AS (
        SELECT typed.*, typed.type_turn AND (typed.type_room IS NULL OR typed.type_rank <= typed.type_room) AS type_ok
          FROM typed
    ),
    ranked AS (
        SELECT passed.*, row_number() OVER (PARTITION BY passed.tenant_id, passed.type_ok AND passed.tenant_turn
                                                ORDER BY passed.precedence NULLS LAST, passed.seq, passed.priority DESC, passed.ord) AS tenant_rank
          FROM passed
    ),
    judged AS MATERIALIZED (
        SELECT ranked.*, ranked.type_ok AND ranked.tenant_turn AND (ranked.tenant_room IS NULL OR ranked.tenant_rank <= ranked.tenant_room) AS admitted
          FROM ranked
    ),
    seated AS (
        INSERT INTO waiting (tenant_id, kind, line, precedence, job_id)
        SELECT judged.tenant_id, CASE WHEN judged.type_ok THEN 1 ELSE 2 END, CASE WHEN judged.type_ok THEN 0 ELSE judged.type_id END, 3 - judged.priority,
               judged.job_id
          FROM judged
         WHERE NOT judged.admitted
         ORDER BY judged.ord
            ON CONFLICT ON CONSTRAINT waiting_job DO UPDATE SET kind = excluded.kind, line = excluded.line, woken_at = NULL
        RETURNING waiting.tenant_id, waiting.kind, waiting.line
    ),
    crowded AS (
        UPDATE gates
           SET crowded = true
          FROM (
              SELECT gate.ctid
                FROM (SELECT DISTINCT seated.tenant_id, seated.kind, seated.line FROM seated) AS place
                CROSS JOIN LATERAL (
                    SELECT gates.ctid
                      FROM gates
                     WHERE gates.tenant_id = place.tenant_id
                       AND gates.kind = place.kind
                       AND gates.type_id = place.line
                       AND NOT gates.crowded
                    OFFSET 0
                ) AS gate
          ) AS filled
         WHERE gates.ctid = filled.ctid
    ),
    marked AS (
        UPDATE jobs AS job
           SET hooks = job.hooks | 128
          FROM (
              SELECT row.ctid AS place
                FROM judged
                CROSS JOIN LATERAL (SELECT jobs.ctid FROM jobs WHERE jobs.tenant_id = judged.tenant_id AND jobs.job_id = judged.job_id OFFSET 0) AS row
               WHERE NOT judged.admitted
                 AND judged.hooks & 128 = 0
          ) AS unmarked
         WHERE job.ctid = unmarked.place
    )
    SELECT array_agg(judged.tenant_id) FILTER (WHERE judged.admitted), array_agg(judged.job_id) FILTER (WHERE judged.admitted),
           array_agg(judged.job_id) FILTER (WHERE NOT judged.admitted)
      INTO tenants, jobs, parked
      FROM judged;
END
$$;

CREATE FUNCTION public.cancel_job_v1(p_tenant uuid, p_job uuid, OUT answer text, OUT event_id uuid, OUT outbox bigint, OUT next_job uuid, OUT next_fence integer, OUT next_type integer, OUT next_priority smallint, OUT next_queue smallint, OUT next_outbox bigint) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    open jobs%ROWTYPE;
BEGIN
    PERFORM lock_order_v1(ARRAY[p_tenant], ARRAY[p_job]);
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
    IF open.hooks & 2 <> 0 THEN
        SELECT next.job_id, next.fence, next.type_id, next.priority, next.queue_id, next.outbox
          INTO next_job, next_fence, next_type, next_priority, next_queue, next_outbox
          FROM pass_order_v1(ARRAY[p_tenant], ARRAY[p_job], '{}', false) AS next;
    END IF;
    INSERT INTO outbox (kind, tenant_ids, ref_ids, fences) VALUES (3, ARRAY[p_tenant], ARRAY[p_job], ARRAY[open.fence]) RETURNING outbox_id INTO outbox;
    answer := 'cancelled';
END
$$;

CREATE FUNCTION public.claim_deliveries_v1(p_worker uuid, p_batch uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_actions smallint[], p_errors text[]) RETURNS TABLE(verdict smallint, tenant_id uuid, event_id uuid, endpoint_id uuid, job_id uuid, fence integer, attempt smallint, due_at timestamp with time zone)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.current_tenant_v1() RETURNS uuid
    LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('barnabas.tenant_id', true), '')::uuid $$;

CREATE FUNCTION public.drop_partition_v1(p_parent text, p_day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
DECLARE
    child text := format('%s_%s', p_parent, to_char(p_day, 'YYYYMMDD'));
    needed boolean := false;
BEGIN
    IF p_parent NOT IN ('job_payloads', 'job_results', 'job_attempts', 'deliveries', 'delivery_attempts') OR to_regclass(child) IS NULL THEN
        RETURN false;
    END IF;
    IF p_parent = 'job_payloads' THEN
        EXECUTE format('INSERT INTO job_payloads_kept SELECT sent.* FROM %I AS sent
                         WHERE EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant_id = sent.tenant_id AND jobs.job_id = sent.job_id)
                            OR EXISTS (SELECT 1 FROM dead_letters AS dead WHERE dead.tenant_id = sent.tenant_id AND dead.kind = 1 AND dead.ref = sent.job_id)
                            ON CONFLICT DO NOTHING', child);
    ELSIF p_parent = 'job_results' THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM dead_letters AS dead JOIN %I AS kept ON kept.tenant_id = dead.tenant_id AND kept.job_id = dead.ref WHERE dead.kind = 1)', child)
           INTO needed;
    ELSIF p_parent IN ('deliveries', 'delivery_attempts') AND to_regclass('deliveries_' || to_char(p_day, 'YYYYMMDD')) IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I AS d WHERE d.state < 4)
                            OR EXISTS (SELECT 1 FROM dead_letters AS dead JOIN %I AS d ON d.tenant_id = dead.tenant_id AND d.delivery_id = dead.ref WHERE dead.kind = 2)',
                       'deliveries_' || to_char(p_day, 'YYYYMMDD'), 'deliveries_' || to_char(p_day, 'YYYYMMDD'))
           INTO needed;
    END IF;
    IF needed THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', child);
    RETURN true;
END
$$;

CREATE FUNCTION public.fetch_backlog_v1(p_queues smallint[], p_tenants integer, p_each integer) RETURNS TABLE(tenant_id uuid, job_id uuid, fence integer, type_id integer, priority smallint, queue_id smallint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    idle_tenants uuid[];
    idle_queues smallint[];
BEGIN
    RETURN QUERY
    WITH line AS MATERIALIZED (
        SELECT backlogs.tenant_id, backlogs.queue_id
          FROM backlogs
         WHERE backlogs.queue_id = ANY (p_queues)
         ORDER BY random()
         LIMIT p_tenants
    ),
    head AS MATERIALIZED (
        SELECT seat.*
          FROM line
          CROSS JOIN LATERAL (
              SELECT waiting.tenant_id, waiting.line, waiting.precedence, waiting.seq
                FROM waiting
               WHERE waiting.tenant_id = line.tenant_id
                 AND waiting.kind = 4
                 AND waiting.line = line.queue_id
                 AND (waiting.woken_at IS NULL OR waiting.woken_at < now() - interval '30 seconds')
               ORDER BY waiting.precedence, waiting.seq
               LIMIT p_each
                 FOR UPDATE SKIP LOCKED
          ) AS seat
    ),
    woken AS (
        UPDATE waiting
           SET woken_at = now()
          FROM head
         WHERE waiting.tenant_id = head.tenant_id
           AND waiting.kind = 4
           AND waiting.line = head.line
           AND waiting.precedence = head.precedence
           AND waiting.seq = head.seq
        RETURNING waiting.tenant_id, waiting.job_id
    )
    SELECT job.tenant_id, job.job_id, job.fence, job.type_id, job.priority, job.queue_id
      FROM woken
      JOIN jobs AS job ON job.tenant_id = woken.tenant_id AND job.job_id = woken.job_id;
    IF FOUND THEN
        RETURN;
    END IF;

    -- Seats of jobs that don't wait any more: claimed in the moment in which their seat was marked anew.
    DELETE FROM waiting
     USING backlogs
     WHERE backlogs.queue_id = ANY (p_queues)
       AND waiting.tenant_id = backlogs.tenant_id
       AND waiting.kind = 4
       AND waiting.line = backlogs.queue_id
       AND (SELECT job.hooks & 128 = 0 FROM jobs AS job WHERE job.tenant_id = waiting.tenant_id AND job.job_id = waiting.job_id) IS NOT FALSE
       AND waiting.woken_at < now() - interval '5 seconds';

    -- Locked first and looked at afterwards: an acceptance that adds a job holds the row too.
    SELECT array_agg(idle.tenant_id), array_agg(idle.queue_id) INTO idle_tenants, idle_queues
      FROM (SELECT backlogs.tenant_id, backlogs.queue_id FROM backlogs WHERE backlogs.queue_id = ANY (p_queues)
             ORDER BY backlogs.tenant_id, backlogs.queue_id FOR UPDATE SKIP LOCKED) AS idle;
    DELETE FROM backlogs
     USING unnest(idle_tenants, idle_queues) AS idle (tenant_id, queue_id)
     WHERE backlogs.tenant_id = idle.tenant_id
       AND backlogs.queue_id = idle.queue_id
       AND NOT EXISTS (SELECT 1 FROM waiting WHERE waiting.tenant_id = backlogs.tenant_id AND waiting.kind = 4 AND waiting.line = backlogs.queue_id);
END
$$;

CREATE FUNCTION public.finish_deliveries_v1(p_worker uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_fences integer[], p_states smallint[], p_due timestamp with time zone[], p_statuses smallint[], p_errors text[], p_started timestamp with time zone[], p_durations integer[], p_bodies bytea[], p_reasons text[], p_disable boolean[], p_batches uuid[]) RETURNS TABLE(event_id uuid, endpoint_id uuid, outbox bigint)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.finish_jobs_v1(p_worker uuid, p_tenants uuid[], p_jobs uuid[], p_fences integer[], p_states smallint[], p_results bytea[], p_errors bytea[], p_reasons text[], p_events uuid[], OUT closed uuid[], OUT already uuid[], OUT dead uuid[], OUT outbox bigint, OUT wanted uuid[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
    WITH done AS (
        SELECT *
          FROM unnest(p_tenants, p_jobs, p_fences, p_states, p_results, p_errors, p_reasons, p_events)
            AS t (tenant_id, job_id, fence, state, result, error, reason, event_id)
         WHERE t.job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
    ),
    ended AS (
        DELETE FROM jobs AS job
         USING (
             SELECT done.*, row.ctid AS place
               FROM done
               CROSS JOIN LATERAL (SELECT jobs.ctid FROM jobs WHERE jobs.tenant_id = done.tenant_id AND jobs.job_id = done.job_id OFFSET 0) AS row
         ) AS done
         WHERE job.ctid = done.place
           AND job.job_id = done.job_id
           AND job.fence = done.fence
           AND job.worker_id = p_worker
           AND job.state = 3
           AND (done.state <> 6 OR job.hooks & 32 = 0)
        RETURNING job.tenant_id, job.job_id, job.fence, job.started_at, job.type_id, job.priority, job.queue_id, job.attempt, job.losses, job.hooks,
                  done.state, done.result, done.error, done.reason, done.event_id
    ),
    kept AS (
        INSERT INTO job_results (tenant_id, job_id, event_id, worker_id, started_at, finished_at, fence, type_id, state, priority, queue_id,
                                 attempt, losses, reason, result, error)
        SELECT ended.tenant_id, ended.job_id, ended.event_id, p_worker, ended.started_at,
               -- The worker named its event by its own reckoning of this clock, which may be some milliseconds off.
               GREATEST(ended.started_at, LEAST(uuid_extract_timestamp(ended.event_id), clock_timestamp())), ended.fence,
               ended.type_id, ended.state, ended.priority, ended.queue_id,
               -- A lost job's last claim was no attempt.
               CASE WHEN ended.reason = 'worker_lost' THEN ended.attempt - 1 ELSE ended.attempt END,
               CASE WHEN ended.reason = 'worker_lost' THEN ended.losses + 1 ELSE ended.losses END,
               ended.reason, ended.result, ended.error
          FROM ended
    ),
    lettered AS (
        INSERT INTO dead_letters (tenant_id, kind, ref, reason)
        SELECT ended.tenant_id, 1, ended.job_id, ended.reason
          FROM ended
         WHERE ended.reason IS NOT NULL
    ),
    freed AS (
        UPDATE gates
           SET used = gates.used - less.n
          FROM (
              SELECT gate.ctid, less.n
                FROM (
                    SELECT ended.tenant_id, 1::smallint AS kind, 0 AS type_id, count(*) AS n
                      FROM ended
                     WHERE ended.hooks & 1 <> 0
                     GROUP BY ended.tenant_id
                     UNION ALL
                    SELECT ended.tenant_id, 2::smallint, ended.type_id, count(*)
                      FROM ended
                     WHERE ended.hooks & 256 <> 0
                     GROUP BY ended.tenant_id, ended.type_id
                ) AS less
                CROSS JOIN LATERAL (
                    -- One look by key for each: joined, they were looked for in all the gates there are.
                    SELECT gates.ctid
                      FROM gates
                     WHERE gates.tenant_id = less.tenant_id
                       AND gates.kind = less.kind
                       AND gates.type_id = less.type_id
                    OFFSET 0
                ) AS gate
          ) AS less
         WHERE gates.ctid = less.ctid
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
    SELECT told.ref_ids, told.outbox_id, (SELECT array_agg(ended.job_id) FROM ended WHERE ended.reason IS NOT NULL)
      INTO closed, outbox, dead
      FROM told;

    IF closed IS NULL OR cardinality(closed) < cardinality(p_jobs) THEN
        SELECT array_agg(result.job_id) INTO already
          FROM unnest(p_tenants, p_jobs, p_fences) AS t (tenant_id, job_id, fence)
          JOIN job_results AS result ON result.tenant_id = t.tenant_id AND result.job_id = t.job_id AND result.fence = t.fence
         WHERE result.worker_id = p_worker
           AND result.job_id <> ALL (COALESCE(closed, '{}'));
        SELECT array_agg(job.job_id) INTO wanted
          FROM unnest(p_tenants, p_jobs, p_fences, p_states) AS t (tenant_id, job_id, fence, state)
          JOIN jobs AS job ON job.tenant_id = t.tenant_id AND job.job_id = t.job_id AND job.fence = t.fence
         WHERE t.state = 6
           AND job.worker_id = p_worker
           AND job.state = 3
           AND job.hooks & 32 <> 0;
    END IF;
END
$$;

CREATE FUNCTION public.gate_line_v1(p_tenant uuid, p_kind smallint, p_type integer, p_at timestamp with time zone) RETURNS TABLE(room integer, precedence smallint, seq bigint)
    LANGUAGE sql STABLE
    AS $$
    SELECT gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts, p_at),
           head.precedence, head.seq
      FROM gates
      LEFT JOIN LATERAL (
          SELECT seat.precedence, seat.seq
            FROM waiting AS seat
           WHERE gates.crowded
             AND seat.tenant_id = gates.tenant_id
             AND seat.kind = gates.kind
             AND seat.line = gates.type_id
           ORDER BY seat.precedence, seat.seq
           LIMIT 1
      ) AS head ON true
     WHERE gates.tenant_id = p_tenant
       AND gates.kind = p_kind
       AND gates.type_id = p_type
       AND (gates.allowed IS NOT NULL OR gates.starts_allowed IS NOT NULL)
    OFFSET 0
$$;

CREATE FUNCTION public.gate_room_v1(p_allowed integer, p_used integer, p_starts integer, p_window real, p_log_at timestamp with time zone[], p_log_counts integer[], p_at timestamp with time zone) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT LEAST(
        p_allowed - p_used,
        CASE WHEN p_starts IS NOT NULL THEN p_starts - (
            SELECT COALESCE(sum(entry.n), 0)::integer
              FROM unnest(p_log_at, p_log_counts) AS entry (at, n)
             WHERE entry.at + make_interval(secs => p_window) > p_at
        ) END
    )
$$;

CREATE FUNCTION public.limit_submissions_v1(p_tenants uuid[], p_at timestamp with time zone, OUT marks smallint[], OUT tenants uuid[], OUT allowed integer[], OUT windows real[], OUT rooms integer[], OUT seconds double precision[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    fitting integer[];
    is_over boolean;
BEGIN
    WITH asked AS (
        SELECT t.tenant_id, count(*)::integer AS n
          FROM unnest(p_tenants) AS t (tenant_id)
         GROUP BY t.tenant_id
    ),
    gate AS MATERIALIZED (
        SELECT gates.tenant_id, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts, asked.n,
               LEAST(asked.n, GREATEST(gate_room_v1(NULL, 0, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts, p_at), 0)) AS fits
          FROM asked
          JOIN gates ON gates.tenant_id = asked.tenant_id AND gates.kind = 3 AND gates.starts_allowed IS NOT NULL
    ),
    logged AS MATERIALIZED (
        SELECT gate.tenant_id, gate.starts_allowed, gate.window_seconds, gate.n, gate.fits, COALESCE(log.at_entries, gate.log_at) AS log_at,
               COALESCE(log.counts, gate.log_counts) AS log_counts
          FROM gate
          LEFT JOIN LATERAL log_starts_v1(gate.log_at, gate.log_counts, gate.starts_allowed, gate.window_seconds, p_at, gate.fits) AS log ON gate.fits > 0
    ),
    counted AS (
        UPDATE gates
           SET log_at = logged.log_at, log_counts = logged.log_counts
          FROM logged
         WHERE logged.fits > 0
           AND gates.tenant_id = logged.tenant_id
           AND gates.kind = 3
    )
    SELECT array_agg(logged.tenant_id), array_agg(logged.starts_allowed), array_agg(logged.window_seconds), array_agg(logged.fits), bool_or(logged.fits < logged.n),
           array_agg(GREATEST(gate_room_v1(NULL, 0, logged.starts_allowed, logged.window_seconds, logged.log_at, logged.log_counts, p_at), 0)),
           array_agg((
               -- Of the entries that count, the first whose end leaves fewer than the limit: a lowered limit may have to wait for several.
               SELECT extract(epoch FROM min(entry.at) + make_interval(secs => logged.window_seconds) - p_at)::double precision
                 FROM (
                     SELECT log.at, sum(log.n) OVER (ORDER BY log.place) AS gone, sum(log.n) OVER () AS total
                       FROM unnest(logged.log_at, logged.log_counts) WITH ORDINALITY AS log (at, n, place)
                      WHERE log.at + make_interval(secs => logged.window_seconds) > p_at
                 ) AS entry
                WHERE entry.total - entry.gone < logged.starts_allowed
           ))
      INTO tenants, allowed, windows, fitting, is_over, rooms, seconds
      FROM logged;

    IF is_over THEN
        SELECT array_agg(CASE WHEN asked.rank > gate.fits THEN 1024 END ORDER BY asked.place)
          INTO marks
          FROM (
              SELECT t.tenant_id, t.place, row_number() OVER (PARTITION BY t.tenant_id ORDER BY t.place) AS rank
                FROM unnest(p_tenants) WITH ORDINALITY AS t (tenant_id, place)
          ) AS asked
          LEFT JOIN unnest(tenants, fitting) AS gate (tenant_id, fits) ON gate.tenant_id = asked.tenant_id;
    END IF;
END
$$;

CREATE FUNCTION public.lock_order_v1(p_tenants uuid[], p_jobs uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    -- A job that someone else has ended meanwhile is in no line any more: then there is nothing to lock, and nothing to end.
    PERFORM 1
       FROM unnest(p_tenants, p_jobs) AS ending (tenant_id, job_id)
       JOIN ordering AS place ON place.tenant_id = ending.tenant_id AND place.job_id = ending.job_id
       JOIN ordering_keys AS line ON line.tenant_id = place.tenant_id AND line.ordering_key = place.ordering_key
      ORDER BY line.tenant_id, line.ordering_key
        FOR UPDATE OF line;
END
$$;

CREATE FUNCTION public.log_starts_v1(p_log_at timestamp with time zone[], p_log_counts integer[], p_starts integer, p_window real, p_at timestamp with time zone, p_n integer) RETURNS public.start_log
    LANGUAGE plpgsql IMMUTABLE
    AS $$
DECLARE
    at_entries timestamptz[];
    counts integer[];
    span CONSTANT interval := make_interval(secs => p_window);
    width CONSTANT double precision := p_window / 120.0;
    entry timestamptz := p_at;
    size CONSTANT integer := cardinality(p_log_at);
    first integer := 1;
BEGIN
    IF p_starts > 100 THEN
        entry := to_timestamp(ceil(extract(epoch FROM p_at)::double precision / width) * width);
    END IF;
    -- A clock that was set back must not make room: the log's last entry is the earliest next one.
    IF size > 0 AND p_log_at[size] > entry THEN
        entry := p_log_at[size];
    END IF;
    WHILE first <= size AND p_log_at[first] + span <= p_at LOOP
        first := first + 1;
    END LOOP;
    at_entries := p_log_at[first:];
    counts := p_log_counts[first:];
    IF first <= size AND p_log_at[size] = entry THEN
        counts[cardinality(counts)] := counts[cardinality(counts)] + p_n;
    ELSE
        at_entries := at_entries || entry;
        counts := counts || p_n;
    END IF;
    RETURN (at_entries, counts)::start_log;
END
$$;

CREATE FUNCTION public.make_partitions_v1(p_back integer DEFAULT 2, p_ahead integer DEFAULT 3) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    parent text;
    day date;
    child text;
    keycol text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['job_payloads', 'job_results', 'job_attempts', 'deliveries', 'delivery_attempts'] LOOP
        keycol := CASE parent WHEN 'job_payloads' THEN 'job_id' WHEN 'job_attempts' THEN 'finished_at' ELSE 'event_id' END;
        FOR day IN SELECT generate_series(today - p_back, today + p_ahead, interval '1 day')::date LOOP
            child := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            -- Made beside the table and attached with its bounds proven: the parent is never locked against readers or writers.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE, CONSTRAINT %I CHECK (%I IS NOT NULL AND %I >= %s AND %I < %s))%s',
                child, parent, child || '_day', keycol, keycol, partition_bound_v1(parent, day), keycol, partition_bound_v1(parent, day + 1),
                CASE WHEN parent = 'deliveries' THEN ' WITH (fillfactor = 70)' ELSE '' END);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                parent, child, partition_bound_v1(parent, day), partition_bound_v1(parent, day + 1));
            EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', child, child || '_day');
            RETURN NEXT child;
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION public.make_way_v1(p_tenants uuid[], p_at timestamp with time zone) RETURNS void
    LANGUAGE sql
    AS $$
    WITH gate AS MATERIALIZED (
        SELECT gates.tenant_id,
               COALESCE(gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts, p_at), 500) AS room
          FROM gates
         WHERE gates.tenant_id = ANY (p_tenants)
           AND gates.kind = 1
           AND gates.crowded
    ),
    jammed AS MATERIALIZED (
        -- Mostly nobody is: then only as many are looked at as there is room for.
        SELECT gate.tenant_id
          FROM gate
         WHERE gate.room > 0
           AND EXISTS (SELECT 1 FROM stuck_seats_v1(gate.tenant_id, LEAST(gate.room, 500), p_at))
    ),
    stuck AS MATERIALIZED (
        SELECT jammed.tenant_id, seat.precedence, seat.seq, seat.type_id
          FROM jammed
          CROSS JOIN LATERAL stuck_seats_v1(jammed.tenant_id, 500, p_at) AS seat
    ),
    moved AS (
        UPDATE waiting
           SET kind = 2, line = stuck.type_id, woken_at = NULL
          FROM stuck
         WHERE waiting.tenant_id = stuck.tenant_id
           AND waiting.kind = 1
           AND waiting.line = 0
           AND waiting.precedence = stuck.precedence
           AND waiting.seq = stuck.seq
        RETURNING waiting.tenant_id, waiting.line
    )
    UPDATE gates
       SET crowded = true
      FROM (
          SELECT gate.ctid
            FROM (SELECT DISTINCT moved.tenant_id, moved.line FROM moved) AS place
            CROSS JOIN LATERAL (
                SELECT gates.ctid
                  FROM gates
                 WHERE gates.tenant_id = place.tenant_id
                   AND gates.kind = 2
                   AND gates.type_id = place.line
                   AND NOT gates.crowded
                OFFSET 0
            ) AS gate
      ) AS filled
     WHERE gates.ctid = filled.ctid
$$;

CREATE FUNCTION public.open_deliveries_v1(p_worker uuid, p_batch uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_deliveries uuid[], p_jobs uuid[], p_states smallint[], p_errors text[]) RETURNS TABLE(tenant_id uuid, event_id uuid, endpoint_id uuid, state smallint)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.park_backlog_v1(p_tenants uuid[], p_jobs uuid[], p_queues smallint[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
    -- An update, so that the row is locked against the fetch that would find the backlog empty and delete it.
    INSERT INTO backlogs (tenant_id, queue_id)
    SELECT DISTINCT t.tenant_id, t.queue_id
      FROM unnest(p_tenants, p_queues) AS t (tenant_id, queue_id)
     ORDER BY t.tenant_id, t.queue_id
        ON CONFLICT ON CONSTRAINT backlogs_pkey DO UPDATE SET since = backlogs.since;

    WITH asked AS (
        SELECT t.tenant_id, t.job_id, min(t.ord) AS ord
          FROM unnest(p_tenants, p_jobs) WITH ORDINALITY AS t (tenant_id, job_id, ord)
         WHERE t.job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
         GROUP BY t.tenant_id, t.job_id
         ORDER BY t.tenant_id, t.job_id
    ),
    locked AS MATERIALIZED (
        SELECT job.*, asked.ord
          FROM asked
          CROSS JOIN LATERAL (
              SELECT jobs.tenant_id, jobs.job_id, jobs.queue_id, jobs.priority
                FROM jobs
               WHERE jobs.tenant_id = asked.tenant_id
                 AND jobs.job_id = asked.job_id
                 AND (jobs.state = 2 OR (jobs.state IN (0, 4) AND jobs.due_at <= now()))
                 -- Who waits at a gate and was woken from there keeps that place.
                 AND jobs.hooks & 128 = 0
                 FOR UPDATE
          ) AS job
    ),
    seated AS (
        INSERT INTO waiting (tenant_id, kind, line, precedence, job_id)
        SELECT locked.tenant_id, 4, locked.queue_id, 3 - locked.priority, locked.job_id
          FROM locked
         ORDER BY locked.ord
    )
    UPDATE jobs AS job
       SET hooks = job.hooks | 128
      FROM (
          SELECT row.ctid AS place
            FROM locked
            CROSS JOIN LATERAL (SELECT jobs.ctid FROM jobs WHERE jobs.tenant_id = locked.tenant_id AND jobs.job_id = locked.job_id OFFSET 0) AS row
      ) AS unmarked
     WHERE job.ctid = unmarked.place;
END
$$;

CREATE FUNCTION public.partition_bound_v1(p_parent text, p_day date) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $_$
    SELECT CASE
        WHEN p_parent = 'job_attempts' THEN quote_literal(p_day::text || ' 00:00:00+00')
        -- The smallest UUIDv7 of a day: 48 bits of milliseconds, the rest zero.
        ELSE quote_literal(regexp_replace(lpad(to_hex((extract(epoch FROM p_day::timestamp AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0'),
                                          '^(.{8})(.{4})$', '\1-\2-0000-0000-000000000000'))
    END
$_$;

CREATE FUNCTION public.pass_order_v1(p_tenants uuid[], p_jobs uuid[], p_dead uuid[], p_hold boolean) RETURNS TABLE(tenant_id uuid, job_id uuid, fence integer, type_id integer, priority smallint, queue_id smallint, outbox bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    left_tenants uuid[];
    left_keys    text[];
    left_jobs    uuid[];
BEGIN
    WITH gone AS (
        DELETE FROM ordering AS place
         USING unnest(p_tenants, p_jobs) AS ended (tenant_id, job_id)
         WHERE place.tenant_id = ended.tenant_id
           AND place.job_id = ended.job_id
           AND NOT (p_hold AND place.job_id = ANY (p_dead))
        RETURNING place.tenant_id, place.ordering_key, place.seq, place.job_id
    ),
    noted AS (
        UPDATE dead_letters AS dead
           SET order_seq = gone.seq
          FROM gone
         WHERE gone.job_id = ANY (p_dead)
           AND dead.tenant_id = gone.tenant_id
           AND dead.kind = 1
           AND dead.ref = gone.job_id
    )
    SELECT array_agg(gone.tenant_id), array_agg(gone.ordering_key), array_agg(gone.job_id) INTO left_tenants, left_keys, left_jobs FROM gone;
    IF left_jobs IS NULL THEN
        RETURN;
    END IF;

    -- A statement of its own, so that it sees the lines without those who left. Who left without having the turn changes nothing.
    RETURN QUERY
    WITH line AS (
        SELECT line.tenant_id, line.ordering_key, next.job_id
          FROM unnest(left_tenants, left_keys, left_jobs) AS gone (tenant_id, ordering_key, job_id)
          JOIN ordering_keys AS line ON line.tenant_id = gone.tenant_id AND line.ordering_key = gone.ordering_key AND line.job_id = gone.job_id
          LEFT JOIN LATERAL (
              SELECT place.job_id
                FROM ordering AS place
               WHERE place.tenant_id = line.tenant_id
                 AND place.ordering_key = line.ordering_key
               ORDER BY place.seq
               LIMIT 1
          ) AS next ON true
    ),
    emptied AS (
        DELETE FROM ordering_keys AS old
         USING line
         WHERE line.job_id IS NULL
           AND old.tenant_id = line.tenant_id
           AND old.ordering_key = line.ordering_key
    ),
    turned AS (
        UPDATE ordering_keys AS old
           SET job_id = line.job_id
          FROM line
         WHERE line.job_id IS NOT NULL
           AND old.tenant_id = line.tenant_id
           AND old.ordering_key = line.ordering_key
    ),
    freed AS (
        UPDATE jobs AS job
           SET state = CASE WHEN job.due_at > now() THEN 0 ELSE 2 END,
               ready_at = CASE WHEN job.due_at > now() THEN job.due_at ELSE now() END
          FROM line
         WHERE job.tenant_id = line.tenant_id
           AND job.job_id = line.job_id
           AND job.state = 1
        RETURNING job.tenant_id, job.job_id, job.fence, job.type_id, job.priority, job.queue_id, job.state, job.due_at
    ),
    timed AS (
        INSERT INTO timers (tenant_id, ref_id, kind, fence, due_at, poll_at)
        SELECT freed.tenant_id, freed.job_id, 1, freed.fence, freed.due_at, freed.due_at
          FROM freed
         WHERE freed.state = 0
    ),
    told AS (
        INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
        SELECT 1, array_agg(freed.tenant_id), array_agg(freed.job_id), array_agg(freed.fence)
          FROM freed
         WHERE freed.state = 2
        HAVING count(*) > 0
        RETURNING outbox_id
    )
    SELECT freed.tenant_id, freed.job_id, freed.fence, freed.type_id, freed.priority, freed.queue_id, told.outbox_id
      FROM freed
      CROSS JOIN told
     WHERE freed.state = 2;
END
$$;

CREATE FUNCTION public.redrive_delivery_v1(p_tenant uuid, p_delivery uuid, p_due timestamp with time zone, OUT answer text, OUT outbox bigint, OUT event_id uuid, OUT endpoint_id uuid, OUT fence integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
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
       AND dead.event_id = redrive_delivery_v1.event_id
       AND dead.endpoint_id = redrive_delivery_v1.endpoint_id
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

CREATE FUNCTION public.redrive_job_v1(p_tenant uuid, p_job uuid, p_new uuid, p_due timestamp with time zone, OUT answer text, OUT job_id uuid, OUT outbox bigint, OUT type_id integer, OUT priority smallint, OUT queue_id smallint) RETURNS record
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.refuse_update_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'an ended job never changes: %', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE FUNCTION public.release_deliveries_v1(p_worker uuid, p_tenants uuid[], p_events uuid[], p_endpoints uuid[], p_fences integer[], p_batches uuid[], OUT released uuid[], OUT outbox bigint) RETURNS record
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.release_jobs_v1(p_worker uuid, p_tenants uuid[], p_jobs uuid[], p_fences integer[], p_kinds smallint[], p_due timestamp with time zone[], p_errors bytea[], OUT released uuid[], OUT ready bigint, OUT later bigint, OUT wanted uuid[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
    WITH gone AS (
        SELECT *
          FROM unnest(p_tenants, p_jobs, p_fences, p_kinds, p_due, p_errors) AS t (tenant_id, job_id, fence, kind, due_at, error)
         WHERE t.job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
    ),
    freed_jobs AS (
        UPDATE jobs AS job
           SET state = CASE WHEN gone.due_at IS NULL THEN 2 WHEN gone.kind = 4 THEN 0 ELSE 4 END,
               due_at = gone.due_at,
               ready_at = COALESCE(gone.due_at, now()),
               worker_id = NULL,
               attempt = CASE WHEN gone.kind = 1 THEN job.attempt ELSE job.attempt - 1 END,
               losses = CASE WHEN gone.kind = 2 THEN job.losses + 1 ELSE job.losses END,
               -- No place at a gate any more; a job that was lost once runs alone from now on.
               hooks = (job.hooks & ~257) | CASE WHEN gone.kind = 2 THEN 64 ELSE 0 END
          FROM (
              SELECT gone.*, row.ctid AS place
                FROM gone
                CROSS JOIN LATERAL (SELECT jobs.ctid FROM jobs WHERE jobs.tenant_id = gone.tenant_id AND jobs.job_id = gone.job_id OFFSET 0) AS row
          ) AS gone
         WHERE job.ctid = gone.place
           AND job.job_id = gone.job_id
           AND job.fence = gone.fence
           AND job.worker_id = p_worker
           AND job.state = 3
           AND job.hooks & 32 = 0
        RETURNING job.tenant_id, job.job_id, job.fence, job.type_id, job.started_at, job.due_at, old.attempt AS attempt_before, old.hooks AS hooks_before,
                  gone.kind, gone.error
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
          FROM (
              SELECT gate.ctid, less.n
                FROM (
                    SELECT freed.tenant_id, 1::smallint AS kind, 0 AS type_id, count(*) AS n
                      FROM freed_jobs AS freed
                     WHERE freed.hooks_before & 1 <> 0
                     GROUP BY freed.tenant_id
                     UNION ALL
                    SELECT freed.tenant_id, 2::smallint, freed.type_id, count(*)
                      FROM freed_jobs AS freed
                     WHERE freed.hooks_before & 256 <> 0
                     GROUP BY freed.tenant_id, freed.type_id
                ) AS less
                CROSS JOIN LATERAL (
                    -- One look by key for each: joined, they were looked for in all the gates there are.
                    SELECT gates.ctid
                      FROM gates
                     WHERE gates.tenant_id = less.tenant_id
                       AND gates.kind = less.kind
                       AND gates.type_id = less.type_id
                    OFFSET 0
                ) AS gate
          ) AS less
         WHERE gates.ctid = less.ctid
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
END
$$;

CREATE FUNCTION public.stuck_seats_v1(p_tenant uuid, p_first integer, p_at timestamp with time zone) RETURNS TABLE(precedence smallint, seq bigint, type_id integer)
    LANGUAGE sql STABLE
    AS $$
    SELECT judged.precedence, judged.seq, judged.type_id
      FROM (
          SELECT ranked.precedence, ranked.seq, ranked.type_id, ranked.asleep, ranked.type_rank,
                 first_value(of_type.room) OVER of_its_type AS room,
                 first_value(of_type.precedence) OVER of_its_type AS head_precedence,
                 first_value(of_type.seq) OVER of_its_type AS head_seq
            FROM (
                SELECT seat.precedence, seat.seq, job.type_id,
                       seat.woken_at IS NULL OR seat.woken_at < now() - interval '30 seconds' AS asleep,
                       row_number() OVER (PARTITION BY job.type_id ORDER BY seat.precedence, seat.seq) AS type_rank
                  FROM (
                      SELECT waiting.tenant_id, waiting.job_id, waiting.precedence, waiting.seq, waiting.woken_at
                        FROM waiting
                       WHERE waiting.tenant_id = p_tenant
                         AND waiting.kind = 1
                         AND waiting.line = 0
                       ORDER BY waiting.precedence, waiting.seq
                       LIMIT p_first
                  ) AS seat
                  JOIN jobs AS job ON job.tenant_id = seat.tenant_id AND job.job_id = seat.job_id
            ) AS ranked
            LEFT JOIN LATERAL (
                -- One look for each type, not for each seat: its log may be long.
                SELECT line.room, line.precedence, line.seq FROM gate_line_v1(p_tenant, 2::smallint, ranked.type_id, p_at) AS line WHERE ranked.type_rank = 1
                OFFSET 0
            ) AS of_type ON true
          WINDOW of_its_type AS (PARTITION BY ranked.type_id ORDER BY ranked.type_rank)
      ) AS judged
     WHERE judged.asleep
       AND judged.room IS NOT NULL
       AND (judged.type_rank > judged.room OR COALESCE((judged.precedence, judged.seq) > (judged.head_precedence, judged.head_seq), false))
$$;

CREATE FUNCTION public.take_parked_deliveries_v1(p_worker uuid, p_batch uuid, p_tenants uuid[], p_endpoints uuid[], p_rooms integer[], p_errors text[]) RETURNS TABLE(tenant_id uuid, event_id uuid, endpoint_id uuid, job_id uuid, fence integer, attempt smallint, state smallint)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.turn_jobs_v1(p_worker uuid, p_told bigint[], p_ended_tenants uuid[], p_ended_jobs uuid[], p_fences integer[], p_states smallint[], p_results bytea[], p_errors bytea[], p_reasons text[], p_events uuid[], p_ordered boolean, p_hold boolean, p_left_tenants uuid[], p_left_jobs uuid[], p_left_fences integer[], p_left_kinds smallint[], p_left_due timestamp with time zone[], p_left_errors bytea[], p_done uuid[], p_wake uuid[], p_spare integer, p_keep boolean, p_batch uuid, p_tenants uuid[], p_jobs uuid[], p_types integer[], p_timeouts_ms integer[]) RETURNS TABLE(verdict smallint, tenant_id uuid, job_id uuid, fence integer, attempt smallint, max_attempts smallint, losses smallint, hooks smallint, type_id integer, priority smallint, queue_id smallint, timeout_ms integer, ready_at timestamp with time zone, started_at timestamp with time zone, payload bytea, metadata bytea, retry bytea, trace bytea, ids uuid[], outbox bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    gated boolean;
    typed boolean;
    ended record;
    gone record;
    admitted record;
    ask_tenants uuid[] := p_tenants;
    ask_jobs uuid[] := p_jobs;
    run_tenants uuid[];
    run_jobs uuid[];
    crowded uuid[];
    tight uuid[];
    settled integer;
    waked uuid[];
    told bigint;
BEGIN
    IF p_batch IS NOT NULL THEN
        -- The heartbeat's lock comes before all others. The reaper deletes this row first: a claim either comes before that and is seen by it, or
        -- finds no row.
        PERFORM 1 FROM workers WHERE worker_id = p_worker AND lease_until > clock_timestamp() FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the lease of worker % is over', p_worker USING ERRCODE = 'BB001';
        END IF;
    END IF;
    IF cardinality(p_told) > 0 THEN
        DELETE FROM outbox WHERE outbox_id = ANY (p_told);
    END IF;

    SELECT count(*) > 0, COALESCE(bool_or(gate.kind = 2), false), array_agg(gate.tenant_id) FILTER (WHERE gate.crowded), array_agg(gate.tenant_id) FILTER (WHERE gate.crowded OR gate.room < touched.n)
      INTO gated, typed, crowded, tight
      FROM (
          SELECT t.tenant_id, sum(t.n) AS n
            FROM (SELECT unnest(p_tenants) AS tenant_id, 1 AS n UNION ALL SELECT unnest(p_ended_tenants || p_left_tenants || p_wake), 0) AS t
           GROUP BY t.tenant_id
           ORDER BY t.tenant_id
      ) AS touched
      CROSS JOIN LATERAL (
          -- In the order of keys, since those who ask for it are.
          SELECT gates.tenant_id, gates.kind, gates.crowded,
                 gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts, clock_timestamp()) AS room
            FROM gates
           WHERE gates.tenant_id = touched.tenant_id
             AND gates.kind IN (1, 2)
           ORDER BY gates.kind, gates.type_id
             FOR UPDATE
      ) AS gate;
    at := clock_timestamp();

    IF cardinality(p_ended_jobs) > 0 THEN
        IF p_ordered THEN
            PERFORM lock_order_v1(p_ended_tenants, p_ended_jobs);
        END IF;
        SELECT * INTO ended
          FROM finish_jobs_v1(p_worker, p_ended_tenants, p_ended_jobs, p_fences, p_states, p_results, p_errors, p_reasons, p_events);
        IF p_ordered AND ended.closed IS NOT NULL THEN
            RETURN QUERY
            SELECT 6::smallint, job.tenant_id, job.job_id, job.fence, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, job.type_id, job.priority,
                   job.queue_id, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea, NULL::uuid[],
                   job.outbox
              FROM pass_order_v1((SELECT array_agg(t.tenant_id) FROM unnest(p_ended_tenants, p_ended_jobs) AS t (tenant_id, job_id) WHERE t.job_id = ANY (ended.closed)),
                                 (SELECT array_agg(t.job_id) FROM unnest(p_ended_tenants, p_ended_jobs) AS t (tenant_id, job_id) WHERE t.job_id = ANY (ended.closed)),
                                 COALESCE(ended.dead, '{}'), p_hold) AS job;
        END IF;
        RETURN QUERY
        SELECT line.verdict, NULL::uuid, NULL::uuid, NULL::integer, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, NULL::integer,
               NULL::smallint, NULL::smallint, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea,
               line.ids, line.outbox
          FROM (VALUES (10::smallint, ended.closed, ended.outbox), (11::smallint, ended.already, NULL::bigint),
                       (15::smallint, ended.wanted, NULL::bigint)) AS line (verdict, ids, outbox)
         WHERE line.ids IS NOT NULL;
    END IF;

    IF cardinality(p_left_jobs) > 0 THEN
        SELECT * INTO gone FROM release_jobs_v1(p_worker, p_left_tenants, p_left_jobs, p_left_fences, p_left_kinds, p_left_due, p_left_errors);
        RETURN QUERY
        SELECT line.verdict, NULL::uuid, NULL::uuid, NULL::integer, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, NULL::integer,
               NULL::smallint, NULL::smallint, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea,
               line.ids, line.outbox
          FROM (VALUES (12::smallint, gone.released, NULL::bigint), (13::smallint, NULL::uuid[], gone.ready), (14::smallint, NULL::uuid[], gone.later),
                       (15::smallint, gone.wanted, NULL::bigint)) AS line (verdict, ids, outbox)
         WHERE line.ids IS NOT NULL
            OR line.outbox IS NOT NULL;
    END IF;

    IF cardinality(p_done) > 0 THEN
        DELETE FROM lease_batches WHERE batch_id = ANY (p_done);
    END IF;

    -- Who starts in the place of one that was let go just now starts after it.
    at := clock_timestamp();
    IF crowded IS NOT NULL AND cardinality(p_ended_jobs) + cardinality(p_left_jobs) + cardinality(p_wake) > 0 THEN
        IF typed THEN
            -- A statement of its own: the wake meets the lines as this leaves them.
            PERFORM make_way_v1(crowded, at);
        END IF;
        FOR ended IN
            SELECT job.*, job.type_id = ANY (p_types) AS handled
              FROM wake_waiting_v1(crowded, at) AS job
        LOOP
            IF ended.handled AND p_spare > 0 THEN
                p_spare := p_spare - 1;
                ask_tenants := ask_tenants || ended.tenant_id;
                ask_jobs := ask_jobs || ended.job_id;
            ELSIF ended.handled AND p_keep THEN
                RETURN QUERY
                SELECT 7::smallint, ended.tenant_id, ended.job_id, ended.fence, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, ended.type_id,
                       ended.priority, ended.queue_id, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea,
                       NULL::uuid[], NULL::bigint;
            ELSE
                waked := waked || ended.job_id;
            END IF;
        END LOOP;
        IF waked IS NOT NULL THEN
            INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
            SELECT 1, array_agg(job.tenant_id), array_agg(job.job_id), array_agg(job.fence)
              FROM waiting AS seat
              JOIN jobs AS job ON job.tenant_id = seat.tenant_id AND job.job_id = seat.job_id
             WHERE seat.tenant_id = ANY (crowded)
               AND seat.job_id = ANY (waked)
            RETURNING outbox_id INTO told;
            RETURN QUERY
            SELECT 6::smallint, job.tenant_id, job.job_id, job.fence, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, job.type_id, job.priority,
                   job.queue_id, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea, NULL::uuid[], told
              FROM outbox AS line
              CROSS JOIN LATERAL unnest(line.tenant_ids, line.ref_ids) AS t (tenant_id, job_id)
              JOIN jobs AS job ON job.tenant_id = t.tenant_id AND job.job_id = t.job_id
             WHERE line.outbox_id = told;
        END IF;
    END IF;

    IF p_batch IS NULL OR cardinality(ask_jobs) = 0 THEN
        RETURN;
    END IF;
    settled := 0;
    run_tenants := ask_tenants;
    run_jobs := ask_jobs;
    IF tight IS NOT NULL THEN
        -- Most gates have room for all who ask. Only the others' jobs are judged one by one.
        SELECT * INTO admitted
          FROM admit_jobs_v1((SELECT array_agg(t.tenant_id ORDER BY t.ord) FROM unnest(ask_tenants) WITH ORDINALITY AS t (tenant_id, ord) WHERE t.tenant_id = ANY (tight)),
                             (SELECT array_agg(t.job_id ORDER BY t.ord) FROM unnest(ask_tenants, ask_jobs) WITH ORDINALITY AS t (tenant_id, job_id, ord)
                               WHERE t.tenant_id = ANY (tight)),
                             p_types, at);
        SELECT array_agg(t.tenant_id) || admitted.tenants, array_agg(t.job_id) || admitted.jobs
          INTO run_tenants, run_jobs
          FROM unnest(ask_tenants, ask_jobs) AS t (tenant_id, job_id)
         WHERE t.tenant_id <> ALL (tight);
        IF admitted.parked IS NOT NULL THEN
            settled := cardinality(admitted.parked);
            RETURN QUERY
            SELECT 2::smallint, NULL::uuid, NULL::uuid, NULL::integer, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, NULL::integer,
                   NULL::smallint, NULL::smallint, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea,
                   admitted.parked, NULL::bigint;
        END IF;
    END IF;

    RETURN QUERY
    WITH claimed AS (
        UPDATE jobs AS job
           SET state = 3, fence = job.fence + 1, attempt = job.attempt + 1, worker_id = p_worker, started_at = at,
               -- Whoever takes a counted place says so in its row.
               hooks = (job.hooks & ~128) | CASE WHEN gated AND EXISTS (
                   SELECT 1 FROM gates WHERE gates.tenant_id = job.tenant_id AND gates.kind = 1 AND gates.type_id = 0 AND gates.allowed IS NOT NULL
               ) THEN 1 ELSE 0 END | CASE WHEN typed AND EXISTS (
                   SELECT 1 FROM gates WHERE gates.tenant_id = job.tenant_id AND gates.kind = 2 AND gates.type_id = job.type_id AND gates.allowed IS NOT NULL
               ) THEN 256 ELSE 0 END,
               timeout_ms = COALESCE(job.timeout_ms, p_timeouts_ms[array_position(p_types, job.type_id)])
          FROM (
              SELECT wanted.job_id, row.ctid AS place
                FROM unnest(run_tenants, run_jobs) AS wanted (tenant_id, job_id)
                CROSS JOIN LATERAL (SELECT jobs.ctid FROM jobs WHERE jobs.tenant_id = wanted.tenant_id AND jobs.job_id = wanted.job_id OFFSET 0) AS row
               WHERE wanted.job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
          ) AS wanted
         WHERE job.ctid = wanted.place
           AND job.job_id = wanted.job_id
           AND (job.state = 2 OR (job.state IN (0, 4) AND job.due_at <= now()))
           AND job.type_id = ANY (p_types)
        RETURNING job.*
    ),
    counted AS (
        UPDATE gates
           SET used = gates.used + CASE WHEN gates.allowed IS NULL THEN 0 ELSE more.n END,
               log_at = COALESCE((more.log).at_entries, gates.log_at),
               log_counts = COALESCE((more.log).counts, gates.log_counts)
          FROM (
              SELECT gate.ctid, started.n, gate.log
                FROM (
                    SELECT claimed.tenant_id, 1::smallint AS kind, 0 AS type_id, count(*)::integer AS n
                      FROM claimed
                     WHERE gated
                     GROUP BY claimed.tenant_id
                     UNION ALL
                    SELECT claimed.tenant_id, 2::smallint, claimed.type_id, count(*)::integer
                      FROM claimed
                     WHERE typed
                     GROUP BY claimed.tenant_id, claimed.type_id
                ) AS started
                CROSS JOIN LATERAL (
                    SELECT gates.ctid,
                           CASE WHEN gates.starts_allowed IS NOT NULL THEN
                               log_starts_v1(gates.log_at, gates.log_counts, gates.starts_allowed, gates.window_seconds, at, started.n)
                           END AS log
                      FROM gates
                     WHERE gates.tenant_id = started.tenant_id
                       AND gates.kind = started.kind
                       AND gates.type_id = started.type_id
                       AND (gates.allowed IS NOT NULL OR gates.starts_allowed IS NOT NULL)
                    OFFSET 0
                ) AS gate
          ) AS more
         WHERE gates.ctid = more.ctid
    ),
    batch AS (
        INSERT INTO lease_batches (batch_id, worker_id, tenant_ids, ref_ids)
        SELECT p_batch, p_worker, array_agg(claimed.tenant_id), array_agg(claimed.job_id)
          FROM claimed
        HAVING count(*) > 0
    )
    SELECT 1::smallint, job.tenant_id, job.job_id, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks,
           job.type_id, job.priority, job.queue_id, job.timeout_ms, job.ready_at, job.started_at,
           COALESCE(sent.payload, (SELECT kept.payload FROM job_payloads_kept AS kept WHERE kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
           COALESCE(sent.metadata, (SELECT kept.metadata FROM job_payloads_kept AS kept WHERE sent.job_id IS NULL AND kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
           COALESCE(sent.retry, (SELECT kept.retry FROM job_payloads_kept AS kept WHERE sent.job_id IS NULL AND kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)),
           sent.trace, NULL::uuid[], NULL::bigint
      FROM claimed AS job
      LEFT JOIN job_payloads AS sent ON sent.tenant_id = job.tenant_id AND sent.job_id = job.job_id;
    GET DIAGNOSTICS told = ROW_COUNT;
    settled := settled + told;
    -- A statement of its own: whoever parked one of them a moment ago was waited for, and is seen only now.
    DELETE FROM waiting
     USING (
         SELECT seat.ctid
           FROM unnest(run_tenants, run_jobs) AS started (tenant_id, job_id)
           CROSS JOIN LATERAL (
               SELECT waiting.ctid FROM waiting WHERE waiting.tenant_id = started.tenant_id AND waiting.job_id = started.job_id OFFSET 0
           ) AS seat
          WHERE (SELECT job.state = 3 AND job.worker_id = p_worker FROM jobs AS job WHERE job.tenant_id = started.tenant_id AND job.job_id = started.job_id)
     ) AS seated
     WHERE waiting.ctid = seated.ctid;

    IF settled < cardinality(ask_jobs) THEN
        -- What is left is early (its timer brings it), without a handler here, or stale: running, ended, or never there.
        RETURN QUERY
        WITH unhandled AS (
            UPDATE jobs AS job
               SET hooks = job.hooks | 128
              FROM (
                  SELECT wanted.job_id, row.ctid AS place
                    FROM unnest(ask_tenants, ask_jobs) AS wanted (tenant_id, job_id)
                    CROSS JOIN LATERAL (SELECT jobs.ctid FROM jobs WHERE jobs.tenant_id = wanted.tenant_id AND jobs.job_id = wanted.job_id OFFSET 0) AS row
                   WHERE wanted.job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
              ) AS wanted
             WHERE job.ctid = wanted.place
               AND job.job_id = wanted.job_id
               AND (job.state = 2 OR (job.state IN (0, 4) AND job.due_at <= now()))
               AND job.type_id <> ALL (p_types)
            RETURNING job.tenant_id, job.job_id, job.type_id, job.priority
        ),
        seated AS (
            INSERT INTO waiting (tenant_id, kind, line, precedence, job_id)
            SELECT unhandled.tenant_id, 3, unhandled.type_id, 3 - unhandled.priority, unhandled.job_id
              FROM unhandled
                ON CONFLICT ON CONSTRAINT waiting_job DO UPDATE SET kind = excluded.kind, line = excluded.line, woken_at = NULL
        ),
        early AS (
            SELECT job.job_id
              FROM unnest(ask_tenants, ask_jobs) AS wanted (tenant_id, job_id)
              CROSS JOIN LATERAL (
                  SELECT jobs.job_id, jobs.state, jobs.due_at FROM jobs WHERE jobs.tenant_id = wanted.tenant_id AND jobs.job_id = wanted.job_id OFFSET 0
              ) AS job
             WHERE job.state IN (0, 4)
               AND job.due_at > now()
        )
        SELECT line.verdict, NULL::uuid, NULL::uuid, NULL::integer, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint, NULL::integer,
               NULL::smallint, NULL::smallint, NULL::integer, NULL::timestamptz, NULL::timestamptz, NULL::bytea, NULL::bytea, NULL::bytea, NULL::bytea,
               line.ids, NULL::bigint
          FROM (SELECT 4::smallint, array_agg(unhandled.job_id) FROM unhandled UNION ALL SELECT 3::smallint, array_agg(early.job_id) FROM early)
            AS line (verdict, ids)
         WHERE line.ids IS NOT NULL;
    END IF;
END
$$;

CREATE FUNCTION public.wake_waiting_v1(p_tenants uuid[], p_at timestamp with time zone) RETURNS TABLE(tenant_id uuid, job_id uuid, fence integer, type_id integer, priority smallint, queue_id smallint)
    LANGUAGE sql
    AS $$
    WITH gate AS MATERIALIZED (
        -- A limit that was taken away leaves its gate open: the backlog leaves in portions.
        SELECT gates.ctid, gates.tenant_id, gates.kind, gates.type_id,
               COALESCE(gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts, p_at), 500) AS room
          FROM gates
         WHERE gates.tenant_id = ANY (p_tenants)
           AND gates.kind IN (1, 2)
           AND gates.crowded
    ),
    emptied AS (
        UPDATE gates
           SET crowded = false
          FROM gate
         WHERE gates.ctid = gate.ctid
           AND NOT EXISTS (SELECT 1 FROM waiting WHERE waiting.tenant_id = gate.tenant_id AND waiting.kind = gate.kind AND waiting.line = gate.type_id)
    ),
    head AS (
        SELECT seat.*
          FROM gate
          CROSS JOIN LATERAL (
              SELECT waiting.tenant_id, waiting.kind, waiting.line, waiting.precedence, waiting.seq
                FROM waiting
               WHERE waiting.tenant_id = gate.tenant_id
                 AND waiting.kind = gate.kind
                 AND waiting.line = gate.type_id
               ORDER BY waiting.precedence, waiting.seq
               LIMIT LEAST(GREATEST(gate.room, 0), 500)
          ) AS seat
    ),
    woken AS (
        UPDATE waiting
           SET woken_at = now()
          FROM head
         WHERE waiting.tenant_id = head.tenant_id
           AND waiting.kind = head.kind
           AND waiting.line = head.line
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

CREATE TABLE public.api_keys (
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone
);

ALTER TABLE ONLY public.api_keys FORCE ROW LEVEL SECURITY;

CREATE TABLE public.backlogs (
    tenant_id uuid NOT NULL,
    queue_id smallint NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.backlogs FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.backlogs IS 'Tenants that have rows of kind 4 in waiting: their new jobs go there too, behind them, until workers have fetched the last';

CREATE TABLE public.cancel_requests (
    worker_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    fence integer NOT NULL
);

ALTER TABLE ONLY public.cancel_requests FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.cancel_requests IS 'Running jobs whose cancel was asked for; the holder takes its rows with each renewal';

CREATE TABLE public.dead_letters (
    tenant_id uuid NOT NULL,
    kind smallint NOT NULL,
    ref uuid NOT NULL,
    reason text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    order_seq bigint,
    CONSTRAINT dead_letters_kind CHECK (((kind >= 1) AND (kind <= 2)))
);

ALTER TABLE ONLY public.dead_letters FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.dead_letters IS 'Open dead letters: jobs (kind 1, ref = job_id), deliveries (kind 2, ref = delivery_id); redrive and discard delete them';

COMMENT ON COLUMN public.dead_letters.order_seq IS 'The place that the job had in the line of its ordering key, for whoever takes its place';

CREATE TABLE public.deliveries (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    job_id uuid NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    due_at timestamp with time zone,
    finished_at timestamp with time zone,
    fence integer DEFAULT 0 NOT NULL,
    state smallint NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    last_status smallint,
    error text,
    CONSTRAINT deliveries_state CHECK (((state >= 0) AND (state <= 6)))
)
PARTITION BY RANGE (event_id);

ALTER TABLE ONLY public.deliveries FORCE ROW LEVEL SECURITY;

CREATE TABLE public.delivery_attempts (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    fence integer NOT NULL,
    attempt smallint NOT NULL,
    started_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    status smallint,
    error text,
    response_body bytea
)
PARTITION BY RANGE (event_id);

ALTER TABLE ONLY public.delivery_attempts FORCE ROW LEVEL SECURITY;

CREATE TABLE public.endpoint_secrets (
    tenant_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    secret_id uuid NOT NULL,
    secret text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone
);

ALTER TABLE ONLY public.endpoint_secrets FORCE ROW LEVEL SECURITY;

CREATE TABLE public.endpoints (
    tenant_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    url text NOT NULL,
    event_types text[],
    retry_schedule_seconds double precision[],
    headers jsonb,
    disabled_reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    disabled_at timestamp with time zone,
    deleted_at timestamp with time zone
);

ALTER TABLE ONLY public.endpoints FORCE ROW LEVEL SECURITY;

CREATE TABLE public.gates (
    tenant_id uuid NOT NULL,
    kind smallint NOT NULL,
    type_id integer DEFAULT 0 NOT NULL,
    allowed integer,
    used integer DEFAULT 0 NOT NULL,
    crowded boolean DEFAULT false NOT NULL,
    starts_allowed integer,
    window_seconds real DEFAULT 60 NOT NULL,
    log_at timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[] NOT NULL,
    log_counts integer[] DEFAULT '{}'::integer[] NOT NULL,
    CONSTRAINT gates_allowed CHECK (((allowed > 0) AND (starts_allowed > 0))),
    CONSTRAINT gates_kind CHECK (((kind >= 1) AND (kind <= 3))),
    CONSTRAINT gates_log CHECK ((cardinality(log_at) = cardinality(log_counts))),
    CONSTRAINT gates_type CHECK (((kind = 2) = (type_id > 0))),
    CONSTRAINT gates_used CHECK ((used >= 0))
)
WITH (fillfactor='30', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='1000');

ALTER TABLE ONLY public.gates FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.gates IS 'One row a limited scope: 1 a tenant''s jobs, 2 its jobs of one type, 3 its submissions. Changed only under the row''s lock, in the transaction that moves the job';

COMMENT ON COLUMN public.gates.used IS 'Jobs of this scope that run now (kinds 1 and 2)';

COMMENT ON COLUMN public.gates.crowded IS 'Whether somebody may be waiting here: false only when nobody is, so that the many gates without a line cost no look at waiting';

COMMENT ON COLUMN public.gates.log_at IS 'The sliding log: when the last starts (kind 3: submissions) were, oldest first, exact up to 100 a window, by 120th parts of the window above that';

COMMENT ON COLUMN public.gates.log_counts IS 'How many there were at each entry of log_at; an entry counts until its time plus the window';

CREATE TABLE public.idempotency_keys (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
)
PARTITION BY HASH (tenant_id, key);

ALTER TABLE ONLY public.idempotency_keys FORCE ROW LEVEL SECURITY;

CREATE TABLE public.idempotency_keys_0 (
    tenant_id uuid CONSTRAINT idempotency_keys_tenant_id_not_null NOT NULL,
    key text CONSTRAINT idempotency_keys_key_not_null NOT NULL,
    job_id uuid CONSTRAINT idempotency_keys_job_id_not_null NOT NULL,
    fingerprint bytea CONSTRAINT idempotency_keys_fingerprint_not_null NOT NULL,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT idempotency_keys_created_at_not_null NOT NULL
);

CREATE TABLE public.idempotency_keys_1 (
    tenant_id uuid CONSTRAINT idempotency_keys_tenant_id_not_null NOT NULL,
    key text CONSTRAINT idempotency_keys_key_not_null NOT NULL,
    job_id uuid CONSTRAINT idempotency_keys_job_id_not_null NOT NULL,
    fingerprint bytea CONSTRAINT idempotency_keys_fingerprint_not_null NOT NULL,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT idempotency_keys_created_at_not_null NOT NULL
);

CREATE TABLE public.idempotency_keys_2 (
    tenant_id uuid CONSTRAINT idempotency_keys_tenant_id_not_null NOT NULL,
    key text CONSTRAINT idempotency_keys_key_not_null NOT NULL,
    job_id uuid CONSTRAINT idempotency_keys_job_id_not_null NOT NULL,
    fingerprint bytea CONSTRAINT idempotency_keys_fingerprint_not_null NOT NULL,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT idempotency_keys_created_at_not_null NOT NULL
);

CREATE TABLE public.idempotency_keys_3 (
    tenant_id uuid CONSTRAINT idempotency_keys_tenant_id_not_null NOT NULL,
    key text CONSTRAINT idempotency_keys_key_not_null NOT NULL,
    job_id uuid CONSTRAINT idempotency_keys_job_id_not_null NOT NULL,
    fingerprint bytea CONSTRAINT idempotency_keys_fingerprint_not_null NOT NULL,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT idempotency_keys_created_at_not_null NOT NULL
);

CREATE TABLE public.intake_offsets (
    topic_id text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='1000');

CREATE TABLE public.job_attempts (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    fence integer NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    next_at timestamp with time zone,
    worker_id uuid,
    attempt smallint NOT NULL,
    kind smallint NOT NULL,
    error bytea,
    CONSTRAINT job_attempts_kind CHECK (((kind >= 1) AND (kind <= 4)))
)
PARTITION BY RANGE (finished_at);

ALTER TABLE ONLY public.job_attempts FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.job_attempts IS 'Attempts before the last, losses, hand-backs and snoozes; the last attempt is in job_results';

CREATE TABLE public.job_payloads (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    redrive_of uuid,
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone,
    type_id integer NOT NULL,
    timeout_ms integer,
    priority smallint NOT NULL,
    queue_id smallint NOT NULL,
    max_attempts smallint,
    payload bytea,
    payload_ref text,
    metadata bytea,
    retry bytea,
    trace bytea,
    ordering_key text,
    CONSTRAINT job_payloads_somewhere CHECK (((payload IS NULL) = (payload_ref IS NOT NULL)))
)
PARTITION BY RANGE (job_id);

ALTER TABLE ONLY public.job_payloads FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.job_payloads IS 'What was submitted, append-only, by day of submission; JSON kept as the bytes that came';

CREATE TABLE public.job_payloads_kept (
    tenant_id uuid CONSTRAINT job_payloads_tenant_id_not_null NOT NULL,
    job_id uuid CONSTRAINT job_payloads_job_id_not_null NOT NULL,
    redrive_of uuid,
    created_at timestamp with time zone CONSTRAINT job_payloads_created_at_not_null NOT NULL,
    run_at timestamp with time zone,
    type_id integer CONSTRAINT job_payloads_type_id_not_null NOT NULL,
    timeout_ms integer,
    priority smallint CONSTRAINT job_payloads_priority_not_null NOT NULL,
    queue_id smallint CONSTRAINT job_payloads_queue_id_not_null NOT NULL,
    max_attempts smallint,
    payload bytea,
    payload_ref text,
    metadata bytea,
    retry bytea,
    trace bytea,
    ordering_key text,
    CONSTRAINT job_payloads_somewhere CHECK (((payload IS NULL) = (payload_ref IS NOT NULL)))
);

ALTER TABLE ONLY public.job_payloads_kept FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.job_payloads_kept IS 'Payloads whose day is over but whose job is open, or whose dead letter is';

CREATE TABLE public.job_progress (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    fence integer NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    percent real NOT NULL,
    message text
)
WITH (fillfactor='60', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='2000');

ALTER TABLE ONLY public.job_progress FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.job_progress IS 'The latest report of running attempts; shown under its fence only';

CREATE TABLE public.job_results (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    event_id uuid NOT NULL,
    worker_id uuid,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    fence integer NOT NULL,
    type_id integer NOT NULL,
    state smallint NOT NULL,
    priority smallint NOT NULL,
    queue_id smallint NOT NULL,
    attempt smallint NOT NULL,
    losses smallint NOT NULL,
    reason text,
    result bytea,
    error bytea,
    CONSTRAINT job_results_ended CHECK (((state >= 5) AND (state <= 7)))
)
PARTITION BY RANGE (event_id);

ALTER TABLE ONLY public.job_results FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.job_results IS 'Ended jobs, one row each for ever, by day of the end; made only by moving the row out of jobs';

CREATE TABLE public.job_types (
    type_id integer NOT NULL,
    name text NOT NULL
);

ALTER TABLE public.job_types ALTER COLUMN type_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.job_types_type_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.jobs (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    worker_id uuid,
    ready_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone,
    started_at timestamp with time zone,
    fence integer DEFAULT 0 NOT NULL,
    type_id integer NOT NULL,
    timeout_ms integer,
    state smallint NOT NULL,
    priority smallint NOT NULL,
    queue_id smallint DEFAULT 0 NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    max_attempts smallint,
    losses smallint DEFAULT 0 NOT NULL,
    hooks smallint DEFAULT 0 NOT NULL,
    CONSTRAINT jobs_open CHECK (((state >= 0) AND (state <= 4))),
    CONSTRAINT jobs_priority CHECK (((priority >= 0) AND (priority <= 3)))
)
WITH (fillfactor='40', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='20000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_threshold='-1', autovacuum_analyze_threshold='1000000000');

ALTER TABLE ONLY public.jobs FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.jobs IS 'Open jobs only, narrow. No index but the key: a column that an index names makes every update of it cost an entry.';

COMMENT ON COLUMN public.jobs.hooks IS 'Bits, see domain.jobs.Hook: what a finish must look after besides the row itself';

CREATE TABLE public.kafka_topics (
    topic text NOT NULL,
    cluster_id text NOT NULL,
    topic_id text NOT NULL
);

COMMENT ON TABLE public.kafka_topics IS 'The identity of each topic when last seen: another one means that its records are gone';

CREATE TABLE public.leaders (
    role text NOT NULL,
    holder uuid NOT NULL,
    lease_until timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.lease_batches (
    batch_id uuid NOT NULL,
    worker_id uuid NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL,
    tenant_ids uuid[] NOT NULL,
    ref_ids uuid[] NOT NULL,
    endpoint_ids uuid[]
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='2000');

CREATE TABLE public.ordering (
    tenant_id uuid NOT NULL,
    ordering_key text NOT NULL,
    seq bigint NOT NULL,
    job_id uuid NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000');

ALTER TABLE ONLY public.ordering FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.ordering IS 'The open jobs of each line, and the dead letter that holds one, where dead letters do';

COMMENT ON COLUMN public.ordering.seq IS 'The place in line: the order of submission. A redrive takes the place that its dead letter had';

CREATE TABLE public.ordering_keys (
    tenant_id uuid NOT NULL,
    ordering_key text NOT NULL,
    job_id uuid NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='2000');

ALTER TABLE ONLY public.ordering_keys FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.ordering_keys IS 'The lines, each there while it has rows in ordering; whoever changes a line holds the lock of its row';

COMMENT ON COLUMN public.ordering_keys.job_id IS 'Whose turn it is: an open job, or the dead letter that holds the line';

ALTER TABLE public.ordering ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.ordering_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.outbox (
    outbox_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    kind smallint NOT NULL,
    tenant_ids uuid[] NOT NULL,
    ref_ids uuid[] NOT NULL,
    endpoint_ids uuid[],
    fences integer[] NOT NULL,
    CONSTRAINT outbox_kind CHECK (((kind >= 1) AND (kind <= 4)))
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='2000');

COMMENT ON TABLE public.outbox IS 'One row a flushed batch: 1 jobs to their priority''s topic, 2 jobs to retries, 3 ended jobs to results (and the DLQ), 4 deliveries to deliveries.retry or retries';

ALTER TABLE public.outbox ALTER COLUMN outbox_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.queues (
    queue_id integer NOT NULL,
    name text NOT NULL,
    shares smallint[] DEFAULT '{20,30,25,25}'::smallint[] NOT NULL,
    CONSTRAINT queues_shares CHECK (((cardinality(shares) = 4) AND (1 <= ALL (shares)) AND (1000 >= ALL (shares)))),
    CONSTRAINT queues_small CHECK (((queue_id >= 0) AND (queue_id <= 32767)))
);

COMMENT ON COLUMN public.queues.shares IS 'Parts of the slots by priority, low to critical, while all four have work';

ALTER TABLE public.queues ALTER COLUMN queue_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.queues_queue_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.redrive_paces (
    tenant_id uuid NOT NULL,
    kind smallint NOT NULL,
    next_at timestamp with time zone NOT NULL,
    CONSTRAINT redrive_paces_kind CHECK (((kind >= 1) AND (kind <= 2)))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.redrive_paces FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.redrive_paces IS 'Until when each tenant''s redrives at a rate are spread: jobs (kind 1) and deliveries (kind 2)';

CREATE TABLE public.redrives (
    tenant_id uuid NOT NULL,
    redrive_of uuid NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.redrives FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.redrives IS 'Which job took a dead letter''s place: the same redrive twice finds it here';

CREATE TABLE public.revisions (
    name text NOT NULL,
    revision bigint DEFAULT 1 NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE public.revisions IS 'Counters that go up when what processes keep in memory has changed; a heartbeat''s renewal carries them';

CREATE TABLE public.schema_migrations (
    name text NOT NULL,
    digest text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.tenants (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    weight smallint DEFAULT 1 NOT NULL,
    CONSTRAINT tenants_name_length CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT tenants_weight CHECK (((weight >= 1) AND (weight <= 1000)))
);

ALTER TABLE ONLY public.tenants FORCE ROW LEVEL SECURITY;

COMMENT ON COLUMN public.tenants.weight IS 'How many jobs of this tenant start where one of weight 1 starts, while both wait: what its plan is worth';

CREATE TABLE public.timers (
    tenant_id uuid NOT NULL,
    ref_id uuid NOT NULL,
    endpoint_id uuid DEFAULT '00000000-0000-0000-0000-000000000000'::uuid NOT NULL,
    kind smallint NOT NULL,
    fence integer NOT NULL,
    due_at timestamp with time zone NOT NULL,
    poll_at timestamp with time zone NOT NULL,
    CONSTRAINT timers_kind CHECK (((kind >= 1) AND (kind <= 2)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000');

ALTER TABLE ONLY public.timers FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.timers IS 'Every due time, of jobs (kind 1) and deliveries (kind 2); poll_at is 5 s later where a delay topic carries the record';

CREATE TABLE public.waiting (
    tenant_id uuid NOT NULL,
    kind smallint NOT NULL,
    line integer DEFAULT 0 NOT NULL,
    precedence smallint NOT NULL,
    seq bigint NOT NULL,
    job_id uuid NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL,
    woken_at timestamp with time zone,
    CONSTRAINT waiting_kind CHECK (((kind >= 1) AND (kind <= 4)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000');

ALTER TABLE ONLY public.waiting FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.waiting IS 'Parked jobs: 1 at the tenant''s gate, 2 at the gate of one of its types, 3 of a type that no worker which saw them has, 4 backlog that no look-ahead had room for';

COMMENT ON COLUMN public.waiting.line IS 'Of kinds 2 and 3 the type, of kind 4 the queue';

COMMENT ON COLUMN public.waiting.precedence IS '3 - priority, so that the key''s order is the order of release';

COMMENT ON COLUMN public.waiting.seq IS 'The place in line; a job that moves to another line keeps it, so that none is overtaken for ever';

ALTER TABLE public.waiting ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.waiting_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.workers (
    worker_id uuid NOT NULL,
    service text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    slots integer NOT NULL,
    type_ids integer[] NOT NULL,
    queue_ids integer[] DEFAULT '{0}'::integer[] NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_until timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='1000');

COMMENT ON TABLE public.workers IS 'The heartbeat row of each process that holds jobs or deliveries';

ALTER TABLE ONLY public.idempotency_keys ATTACH PARTITION public.idempotency_keys_0 FOR VALUES WITH (modulus 4, remainder 0);

ALTER TABLE ONLY public.idempotency_keys ATTACH PARTITION public.idempotency_keys_1 FOR VALUES WITH (modulus 4, remainder 1);

ALTER TABLE ONLY public.idempotency_keys ATTACH PARTITION public.idempotency_keys_2 FOR VALUES WITH (modulus 4, remainder 2);

ALTER TABLE ONLY public.idempotency_keys ATTACH PARTITION public.idempotency_keys_3 FOR VALUES WITH (modulus 4, remainder 3);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, key_id);

ALTER TABLE ONLY public.backlogs
    ADD CONSTRAINT backlogs_pkey PRIMARY KEY (tenant_id, queue_id);

ALTER TABLE ONLY public.cancel_requests
    ADD CONSTRAINT cancel_requests_pkey PRIMARY KEY (worker_id, tenant_id, job_id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (tenant_id, kind, ref);

ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (tenant_id, event_id, endpoint_id);

ALTER TABLE ONLY public.delivery_attempts
    ADD CONSTRAINT delivery_attempts_pkey PRIMARY KEY (tenant_id, event_id, endpoint_id, fence);

ALTER TABLE ONLY public.endpoint_secrets
    ADD CONSTRAINT endpoint_secrets_pkey PRIMARY KEY (tenant_id, endpoint_id, secret_id);

ALTER TABLE ONLY public.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (tenant_id, endpoint_id);

ALTER TABLE ONLY public.gates
    ADD CONSTRAINT gates_pkey PRIMARY KEY (tenant_id, kind, type_id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY public.idempotency_keys_0
    ADD CONSTRAINT idempotency_keys_0_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY public.idempotency_keys_1
    ADD CONSTRAINT idempotency_keys_1_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY public.idempotency_keys_2
    ADD CONSTRAINT idempotency_keys_2_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY public.idempotency_keys_3
    ADD CONSTRAINT idempotency_keys_3_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY public.intake_offsets
    ADD CONSTRAINT intake_offsets_pkey PRIMARY KEY (topic_id, partition);

ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT job_attempts_pkey PRIMARY KEY (tenant_id, job_id, fence, finished_at);

ALTER TABLE ONLY public.job_payloads_kept
    ADD CONSTRAINT job_payloads_kept_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY public.job_payloads
    ADD CONSTRAINT job_payloads_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY public.job_progress
    ADD CONSTRAINT job_progress_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY public.job_results
    ADD CONSTRAINT job_results_pkey PRIMARY KEY (tenant_id, job_id, event_id);

ALTER TABLE ONLY public.job_types
    ADD CONSTRAINT job_types_name_key UNIQUE (name);

ALTER TABLE ONLY public.job_types
    ADD CONSTRAINT job_types_pkey PRIMARY KEY (type_id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY public.kafka_topics
    ADD CONSTRAINT kafka_topics_pkey PRIMARY KEY (topic);

ALTER TABLE ONLY public.leaders
    ADD CONSTRAINT leaders_pkey PRIMARY KEY (role);

ALTER TABLE ONLY public.lease_batches
    ADD CONSTRAINT lease_batches_pkey PRIMARY KEY (batch_id);

ALTER TABLE ONLY public.ordering
    ADD CONSTRAINT ordering_job UNIQUE (tenant_id, job_id);

ALTER TABLE ONLY public.ordering_keys
    ADD CONSTRAINT ordering_keys_pkey PRIMARY KEY (tenant_id, ordering_key);

ALTER TABLE ONLY public.ordering
    ADD CONSTRAINT ordering_pkey PRIMARY KEY (tenant_id, ordering_key, seq);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (outbox_id);

ALTER TABLE ONLY public.queues
    ADD CONSTRAINT queues_name_key UNIQUE (name);

ALTER TABLE ONLY public.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (queue_id);

ALTER TABLE ONLY public.redrive_paces
    ADD CONSTRAINT redrive_paces_pkey PRIMARY KEY (tenant_id, kind);

ALTER TABLE ONLY public.redrives
    ADD CONSTRAINT redrives_pkey PRIMARY KEY (tenant_id, redrive_of);

ALTER TABLE ONLY public.revisions
    ADD CONSTRAINT revisions_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_name_key UNIQUE (name);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.timers
    ADD CONSTRAINT timers_pkey PRIMARY KEY (tenant_id, ref_id, endpoint_id);

ALTER TABLE ONLY public.waiting
    ADD CONSTRAINT waiting_job UNIQUE (tenant_id, job_id);

ALTER TABLE ONLY public.waiting
    ADD CONSTRAINT waiting_pkey PRIMARY KEY (tenant_id, kind, line, precedence, seq);

ALTER TABLE ONLY public.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (worker_id);

CREATE UNIQUE INDEX api_keys_key_id ON public.api_keys USING btree (key_id);

COMMENT ON INDEX public.api_keys_key_id IS 'find_api_key: a credential names its key before anyone knows its tenant';

CREATE INDEX dead_letters_at ON public.dead_letters USING btree (kind, at);

COMMENT ON INDEX public.dead_letters_at IS 'measure_urgent: how many, and how old the oldest is';

CREATE INDEX deliveries_id ON ONLY public.deliveries USING btree (tenant_id, delivery_id);

COMMENT ON INDEX public.deliveries_id IS 'list_deliveries: by the public id, newest first';

CREATE INDEX deliveries_parked ON ONLY public.deliveries USING btree (tenant_id, endpoint_id, event_id) WHERE (state = 1);

COMMENT ON INDEX public.deliveries_parked IS 'take_parked_deliveries: what didn''t fit into its endpoint''s lane';

CREATE INDEX deliveries_pending ON ONLY public.deliveries USING btree (event_id) WHERE (state = 0);

COMMENT ON INDEX public.deliveries_pending IS 'list_pending_deliveries: the oldest that may be tried and that nobody holds';

CREATE INDEX idempotency_keys_created_at ON ONLY public.idempotency_keys USING btree (created_at);

COMMENT ON INDEX public.idempotency_keys_created_at IS 'delete_old_idempotency_keys: the oldest, in chunks';

CREATE INDEX idempotency_keys_0_created_at_idx ON public.idempotency_keys_0 USING btree (created_at);

CREATE INDEX idempotency_keys_1_created_at_idx ON public.idempotency_keys_1 USING btree (created_at);

CREATE INDEX idempotency_keys_2_created_at_idx ON public.idempotency_keys_2 USING btree (created_at);

CREATE INDEX idempotency_keys_3_created_at_idx ON public.idempotency_keys_3 USING btree (created_at);

CREATE INDEX job_progress_at ON public.job_progress USING btree (at);

COMMENT ON INDEX public.job_progress_at IS 'delete_old_progress: what ended jobs left behind';

CREATE INDEX job_results_unsuccessful ON ONLY public.job_results USING btree (tenant_id, job_id) WHERE (state <> 5);

COMMENT ON INDEX public.job_results_unsuccessful IS 'list_unsuccessful_job_ids: the few that failed or were cancelled, among all that succeeded';

CREATE INDEX lease_batches_worker ON public.lease_batches USING btree (worker_id);

COMMENT ON INDEX public.lease_batches_worker IS 'list_lease_batches: what a worker holds, for itself and for the reaper';

CREATE INDEX timers_poll_at ON public.timers USING btree (poll_at);

COMMENT ON INDEX public.timers_poll_at IS 'take_due_timers: the next ones, oldest first';

CREATE INDEX waiting_type ON public.waiting USING btree (line) WHERE (kind = 3);

COMMENT ON INDEX public.waiting_type IS 'wake_handled_types: jobs whose type a live worker has announced since';

ALTER INDEX public.idempotency_keys_created_at ATTACH PARTITION public.idempotency_keys_0_created_at_idx;

ALTER INDEX public.idempotency_keys_pkey ATTACH PARTITION public.idempotency_keys_0_pkey;

ALTER INDEX public.idempotency_keys_created_at ATTACH PARTITION public.idempotency_keys_1_created_at_idx;

ALTER INDEX public.idempotency_keys_pkey ATTACH PARTITION public.idempotency_keys_1_pkey;

ALTER INDEX public.idempotency_keys_created_at ATTACH PARTITION public.idempotency_keys_2_created_at_idx;

ALTER INDEX public.idempotency_keys_pkey ATTACH PARTITION public.idempotency_keys_2_pkey;

ALTER INDEX public.idempotency_keys_created_at ATTACH PARTITION public.idempotency_keys_3_created_at_idx;

ALTER INDEX public.idempotency_keys_pkey ATTACH PARTITION public.idempotency_keys_3_pkey;

CREATE TRIGGER job_results_never_change BEFORE UPDATE ON public.job_results FOR EACH ROW EXECUTE FUNCTION public.refuse_update_v1();

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_tenant FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id);

ALTER TABLE public.api_keys ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.backlogs ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.cancel_requests ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.dead_letters ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.deliveries ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.delivery_attempts ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.endpoint_secrets ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.endpoints ENABLE ROW LEVEL SECURITY;

CREATE POLICY engine_batches ON public.api_keys TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.backlogs TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.cancel_requests TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.dead_letters TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.deliveries TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.delivery_attempts TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.endpoint_secrets TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.endpoints TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.gates TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.idempotency_keys TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.job_attempts TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.job_payloads TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.job_payloads_kept TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.job_progress TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.job_results TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.jobs TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.ordering TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.ordering_keys TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.redrive_paces TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.redrives TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.tenants TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.timers TO barnabas_engine USING (true) WITH CHECK (true);

CREATE POLICY engine_batches ON public.waiting TO barnabas_engine USING (true) WITH CHECK (true);

ALTER TABLE public.gates ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.idempotency_keys ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.job_attempts ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.job_payloads ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.job_payloads_kept ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.job_progress ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.job_results ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.jobs ENABLE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON public.api_keys TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.backlogs TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.cancel_requests TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.dead_letters TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.deliveries TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.delivery_attempts TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.endpoint_secrets TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.endpoints TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.gates TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.idempotency_keys TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.job_attempts TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.job_payloads TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.job_payloads_kept TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.job_progress TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.job_results TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.jobs TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.ordering TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.ordering_keys TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.redrive_paces TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.redrives TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.tenants TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.timers TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

CREATE POLICY one_tenant ON public.waiting TO barnabas_api USING ((tenant_id = public.current_tenant_v1())) WITH CHECK ((tenant_id = public.current_tenant_v1()));

ALTER TABLE public.ordering ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.ordering_keys ENABLE ROW LEVEL SECURITY;

CREATE POLICY owner_looks ON public.api_keys FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.backlogs FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.cancel_requests FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.dead_letters FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.deliveries FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.delivery_attempts FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.endpoints FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.gates FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.idempotency_keys FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.job_attempts FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.job_payloads FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.job_payloads_kept FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.job_progress FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.job_results FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.jobs FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.ordering FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.ordering_keys FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.redrive_paces FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.redrives FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.tenants FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.timers FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_looks ON public.waiting FOR SELECT TO barnabas_owner USING (true);

CREATE POLICY owner_retention ON public.dead_letters TO barnabas_owner USING (true) WITH CHECK (true);

CREATE POLICY owner_retention ON public.deliveries TO barnabas_owner USING (true) WITH CHECK (true);

CREATE POLICY owner_retention ON public.job_payloads TO barnabas_owner USING (true) WITH CHECK (true);

CREATE POLICY owner_retention ON public.job_payloads_kept TO barnabas_owner USING (true) WITH CHECK (true);

CREATE POLICY owner_retention ON public.job_results TO barnabas_owner USING (true) WITH CHECK (true);

CREATE POLICY owner_retention ON public.jobs TO barnabas_owner USING (true) WITH CHECK (true);

ALTER TABLE public.redrive_paces ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.redrives ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.tenants ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.timers ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.waiting ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA public TO barnabas_engine;
GRANT USAGE ON SCHEMA public TO barnabas_api;

REVOKE ALL ON FUNCTION public.drop_partition_v1(p_parent text, p_day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.drop_partition_v1(p_parent text, p_day date) TO barnabas_engine;

REVOKE ALL ON FUNCTION public.make_partitions_v1(p_back integer, p_ahead integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.make_partitions_v1(p_back integer, p_ahead integer) TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.api_keys TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.backlogs TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.cancel_requests TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.dead_letters TO barnabas_engine;
GRANT SELECT ON TABLE public.dead_letters TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.deliveries TO barnabas_engine;
GRANT SELECT ON TABLE public.deliveries TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.delivery_attempts TO barnabas_engine;
GRANT SELECT ON TABLE public.delivery_attempts TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.endpoint_secrets TO barnabas_engine;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.endpoint_secrets TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.endpoints TO barnabas_engine;
GRANT SELECT,INSERT,UPDATE ON TABLE public.endpoints TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.gates TO barnabas_engine;
GRANT SELECT ON TABLE public.gates TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency_keys TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.intake_offsets TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.job_attempts TO barnabas_engine;
GRANT SELECT ON TABLE public.job_attempts TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.job_payloads TO barnabas_engine;
GRANT SELECT ON TABLE public.job_payloads TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.job_payloads_kept TO barnabas_engine;
GRANT SELECT ON TABLE public.job_payloads_kept TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.job_progress TO barnabas_engine;
GRANT SELECT ON TABLE public.job_progress TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.job_results TO barnabas_engine;
GRANT SELECT ON TABLE public.job_results TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.job_types TO barnabas_engine;
GRANT SELECT ON TABLE public.job_types TO barnabas_api;

GRANT USAGE ON SEQUENCE public.job_types_type_id_seq TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.jobs TO barnabas_engine;
GRANT SELECT ON TABLE public.jobs TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.kafka_topics TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.leaders TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.lease_batches TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.ordering TO barnabas_engine;
GRANT SELECT ON TABLE public.ordering TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.ordering_keys TO barnabas_engine;
GRANT SELECT ON TABLE public.ordering_keys TO barnabas_api;

GRANT USAGE ON SEQUENCE public.ordering_seq_seq TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.outbox TO barnabas_engine;

GRANT USAGE ON SEQUENCE public.outbox_outbox_id_seq TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.queues TO barnabas_engine;
GRANT SELECT ON TABLE public.queues TO barnabas_api;

GRANT USAGE ON SEQUENCE public.queues_queue_id_seq TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.redrive_paces TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.redrives TO barnabas_engine;
GRANT SELECT ON TABLE public.redrives TO barnabas_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.revisions TO barnabas_engine;

GRANT SELECT ON TABLE public.schema_migrations TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tenants TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.timers TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.waiting TO barnabas_engine;
GRANT SELECT ON TABLE public.waiting TO barnabas_api;

GRANT USAGE ON SEQUENCE public.waiting_seq_seq TO barnabas_engine;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.workers TO barnabas_engine;
