-- 0004_submissions: what ingest does in one round trip: accept jobs, with and without idempotency keys, and send dead letters round again.
--
-- Locks in the order of all: idempotency keys, gates, backlogs, lines of ordering keys, each sorted by key; then rows that nobody else can see yet.

-- limit_submissions_v1: how many of these submissions their tenants' gates let through: of each tenant the first ones. The caller holds the gates' locks.
--   p_at     the clock, read after the locks
--   marks    1024 for each that is refused, NULL for the others; NULL when none is
--   tenants  who has a limit here; the other arrays run beside it: how many a window, its length, how many more fit, and in how many
--            seconds one more will
CREATE FUNCTION limit_submissions_v1(p_tenants uuid[], p_at timestamptz, OUT marks smallint[], OUT tenants uuid[], OUT allowed integer[], OUT windows real[],
                                     OUT rooms integer[], OUT seconds double precision[])
LANGUAGE plpgsql AS $$
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

-- accept_jobs_v1: a flush of accepted jobs: the open rows, what was submitted, timers of those due later, one outbox row for those ready now.
--   Arrays that hold nothing but NULLs (or default values) may be empty: unnest pads them. Tenants, types and priorities that are the same for all
--   may be given once: each array costs the sender 0.2 us a job.
--   outbox  the outbox row that tells Kafka, NULL when there is nothing to tell
--   marks   one for each job, NULL when nothing is to be said of any; bits: 1 blocked (behind others with its ordering key), 2 stands in a line,
--           128 parked (behind its tenant's backlog), 1024 refused by its tenant's rate: not stored. Blocked and parked ones aren't told.
--   the rest is limit_submissions_v1's, NULL when no tenant here has a limit
CREATE FUNCTION accept_jobs_v1(
    p_tenants uuid[], p_jobs uuid[], p_types integer[], p_priorities smallint[], p_queues smallint[], p_timeouts integer[], p_max_attempts smallint[],
    p_due timestamptz[], p_payloads bytea[], p_metadata bytea[], p_retries bytea[], p_traces bytea[], p_orders text[],
    OUT outbox bigint, OUT marks smallint[], OUT tenants uuid[], OUT allowed integer[], OUT windows real[], OUT rooms integer[],
    OUT seconds double precision[]
)
LANGUAGE plpgsql AS $$
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

-- accept_keyed_jobs_v1: the same where some jobs have an idempotency key: keys first, in key order, and only those that won theirs become jobs, and
--   count towards their tenant's rate. A key of NULL is none. Whoever inserts a key that another transaction is inserting waits here for its
--   end: so equal submissions at once are one job. A job that its tenant's rate refuses gives its key back.
--   holders, fingerprints  for each place the job behind the key (the submitted one's own id when this call made it) and that job's fingerprint;
--           NULL where the job was refused, or the key was lost to the daily cleaning meanwhile: submit again. Both are NULL as a whole when
--           this call made all of them
--   marks   as accept_jobs_v1's, by place; 1024 also for those whose key a refused job of this very call had
CREATE FUNCTION accept_keyed_jobs_v1(
    p_keys text[], p_fingerprints bytea[],
    p_tenants uuid[], p_jobs uuid[], p_types integer[], p_priorities smallint[], p_queues smallint[], p_timeouts integer[], p_max_attempts smallint[],
    p_due timestamptz[], p_payloads bytea[], p_metadata bytea[], p_retries bytea[], p_traces bytea[], p_orders text[],
    OUT outbox bigint, OUT marks smallint[], OUT tenants uuid[], OUT allowed integer[], OUT windows real[], OUT rooms integer[],
    OUT seconds double precision[], OUT holders uuid[], OUT fingerprints bytea[]
)
LANGUAGE plpgsql AS $$
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

-- redrive_job_v1: a new job in the place of a dead one, with what was submitted then; the dead letter is closed, the old job stays as it is.
--   One with an ordering key takes the old place in its line: it runs before all that came later and haven't had their turn. Like an accepted
--   job it is blocked while another of its line has the turn, and parked behind its tenant's backlog; then there is no outbox row.
--   answer  redriven (made here), open (an earlier redrive's job, still open), closed (the dead letter is closed and its job, if any, ended),
--           not_failed (open, succeeded or cancelled), absent
CREATE FUNCTION redrive_job_v1(p_tenant uuid, p_job uuid, p_new uuid, p_due timestamptz, OUT answer text, OUT job_id uuid, OUT outbox bigint, OUT type_id integer,
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

-- redrive_delivery_v1: try a dead delivery again: the same row, its attempts counting on; the dead letter is closed.
--   p_due   when it may be tried at the earliest, as redrive_job_v1's
--   answer  redriven, closed (no dead letter is open for it), unwanted (its endpoint was deleted or is disabled), absent
CREATE FUNCTION redrive_delivery_v1(p_tenant uuid, p_delivery uuid, p_due timestamptz, OUT answer text, OUT outbox bigint, OUT event_id uuid, OUT endpoint_id uuid,
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
