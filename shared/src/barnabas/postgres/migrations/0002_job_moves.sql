-- 0002_job_moves: the functions that move jobs between states. Each locks in one order: the holder's heartbeat, gates, backlogs,
-- lines of ordering keys, jobs, the rest; each of these sorted by key.
--
-- They are functions because what is looked at must be looked at after the locks are held: inside one, each statement has
-- a snapshot of its own, in one round trip. Names are versioned; a later release adds _v2 beside _v1.
--
-- Rows of jobs are found in one way: a list of keys, a look by key for each (LATERAL, which nothing turns round), then the row itself by its place
-- (ctid). After a vacuum that found jobs empty the planner took any list for the longer side and read all open jobs in each turn: 0.9 s with 28,000
-- of them. "BETWEEN the lowest and the highest id" lets every row pass, and tells it that the list is short. A row that somebody changed in this very
-- moment may be passed over: a worker hands in such an ending once more before it takes the job for somebody else's.

-- gate_room_v1: how many more may start at a gate; NULL where it has no limit. The caller holds the gate's lock and read the clock after it.
CREATE FUNCTION gate_room_v1(p_allowed integer, p_used integer, p_starts integer, p_window real, p_log_at timestamptz[], p_log_counts integer[], p_at timestamptz)
RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT LEAST(
        p_allowed - p_used,
        CASE WHEN p_starts IS NOT NULL THEN p_starts - (
            SELECT COALESCE(sum(entry.n), 0)::integer
              FROM unnest(p_log_at, p_log_counts) AS entry (at, n)
             WHERE entry.at + make_interval(secs => p_window) > p_at
        ) END
    )
$$;

-- log_starts_v1: the sliding log of a gate with n more starts in it. Exact up to 100 a window; above, a start counts until the end of its 120th
-- part of the window plus the window, which gives away less than one part in a hundred and never lets one too many through.
CREATE TYPE start_log AS (at_entries timestamptz[], counts integer[]);

CREATE FUNCTION log_starts_v1(p_log_at timestamptz[], p_log_counts integer[], p_starts integer, p_window real, p_at timestamptz, p_n integer)
RETURNS start_log
LANGUAGE plpgsql IMMUTABLE AS $$
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

-- gate_line_v1: a gate's room and the head of its line; no row where there is no limit.
CREATE FUNCTION gate_line_v1(p_tenant uuid, p_kind smallint, p_type integer, p_at timestamptz) RETURNS TABLE (room integer, precedence smallint, seq bigint)
LANGUAGE sql STABLE AS $$
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

-- admit_jobs_v1: which of these ready jobs their gates let start now; the others are parked at the gate that refused them. For gates that are
--   crowded or have too little room for all who ask; the caller holds their locks, and counts what it claims.
--   Two gates may be in the way: that of the job's type first, then the tenant's. Whoever arrives while others wait there, or are on their way
--   back, goes behind them, room or not; a parked job keeps its place in line when it moves to the other gate's line, so that the oldest of
--   the highest priority passes first everywhere and none is overtaken for ever.
CREATE FUNCTION admit_jobs_v1(p_tenants uuid[], p_jobs uuid[], p_types integer[], p_at timestamptz, OUT tenants uuid[], OUT jobs uuid[], OUT parked uuid[])
LANGUAGE plpgsql AS $$
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

-- stuck_seats_v1: of the first so many who wait at a tenant's gate those who couldn't pass the gate of their type now, by admit_jobs_v1's rule: others
--   of the type come first and take its room, here or in the type's own line. Who is on its way to a claim is left to it.
CREATE FUNCTION stuck_seats_v1(p_tenant uuid, p_first integer, p_at timestamptz) RETURNS TABLE (precedence smallint, seq bigint, type_id integer)
LANGUAGE sql STABLE AS $$
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

-- make_way_v1: where one of the next at a tenant's gate is stuck, all of its line's first who are move to their types' lines, as a claim of them
--   would do one by one: room that is promised to them would lie idle. The caller holds the gates' locks.
CREATE FUNCTION make_way_v1(p_tenants uuid[], p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
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

-- wake_waiting_v1: the next jobs that these tenants' gates have room for, marked woken. The caller holds the gates' locks and tells whoever is to
-- claim what comes back. The claim has the last word, so waking one too many costs a record, never the limit.
CREATE FUNCTION wake_waiting_v1(p_tenants uuid[], p_at timestamptz)
RETURNS TABLE (tenant_id uuid, job_id uuid, fence integer, type_id integer, priority smallint, queue_id smallint)
LANGUAGE sql AS $$
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

-- finish_jobs_v1: move ended jobs out of the open table, but only for the worker that still holds each of them. A part of turn_jobs_v1, which
-- holds the locks of their gates and lines.
--   closed   job ids that this call ended; a missing one is superseded
--   already  job ids that the first try of this very call had ended
--   dead     those of closed that became dead letters
--   outbox   the row that tells it, NULL when nothing was closed
--   wanted   failures left as they are because their cancel was asked for: the caller ends them as cancelled instead
CREATE FUNCTION finish_jobs_v1(
    p_worker uuid, p_tenants uuid[], p_jobs uuid[], p_fences integer[], p_states smallint[], p_results bytea[], p_errors bytea[], p_reasons text[],
    p_events uuid[], OUT closed uuid[], OUT already uuid[], OUT dead uuid[], OUT outbox bigint, OUT wanted uuid[]
)
LANGUAGE plpgsql AS $$
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

-- release_jobs_v1: let go of held jobs that did not end: 1 a charged attempt to be retried, 2 a loss, 3 a hand-back, 4 a snooze. A part of
-- turn_jobs_v1, which holds the locks of their gates.
--   p_due    when each may run again; NULL = at once. Up to an hour a delay topic carries it, above that its timer does.
--   released job ids that this call let go; a missing one is superseded
--   ready    outbox row of those that may run at once;   later  outbox row of those that travel through the delay topics
--   wanted   job ids left as they are because their cancel was asked for: the caller ends them as cancelled instead
CREATE FUNCTION release_jobs_v1(
    p_worker uuid, p_tenants uuid[], p_jobs uuid[], p_fences integer[], p_kinds smallint[], p_due timestamptz[], p_errors bytea[],
    OUT released uuid[], OUT ready bigint, OUT later bigint, OUT wanted uuid[]
)
LANGUAGE plpgsql AS $$
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

-- turn_jobs_v1: all that moves jobs into or out of a worker's hands, in one round trip and one commit: forget what Kafka was told, end jobs, let
-- others go, wake whoever may start instead, claim the next ones.
--   p_told         outbox rows that the broker has acknowledged
--   p_ended_*      see finish_jobs_v1;   p_left_*  see release_jobs_v1
--   p_ordered      whether any ended job has an ordering key: then its line is passed on;  p_hold  a dead letter holds its line
--   p_done         lease batches with nothing left in them
--   p_wake         further tenants whose gates may have room (a limit was raised, a window has opened)
--   p_spare        how many of the woken this turn may claim at once, beyond what was asked for
--   p_keep         whether other woken jobs of these types are left to the caller, who puts them into fair order; else Kafka is told
--   p_batch, p_tenants, p_jobs  what to claim, in key order;   p_types, p_timeouts_ms  what is handled here, and the time-out of each type where a
--                  job names none: stored, so that the reaper knows every deadline
-- Rows, by verdict:
--   1 claimed, with all that the attempt needs          2 parked, 3 early, 4 without a handler here: their ids (no row: stale)
--   6 woken and told by the outbox row in `outbox`      7 woken, left to the caller
--   10 ended (ids, outbox)   11 had ended with the first try of this call (ids)
--   12 released (ids)   13 outbox of those ready now   14 outbox of those due later   15 to be cancelled instead (ids)
-- Raises BB001 when the worker's lease is over and it asks for jobs: it must go on under a new id.
CREATE FUNCTION turn_jobs_v1(
    p_worker uuid, p_told bigint[],
    p_ended_tenants uuid[], p_ended_jobs uuid[], p_fences integer[], p_states smallint[], p_results bytea[], p_errors bytea[], p_reasons text[], p_events uuid[],
    p_ordered boolean, p_hold boolean,
    p_left_tenants uuid[], p_left_jobs uuid[], p_left_fences integer[], p_left_kinds smallint[], p_left_due timestamptz[], p_left_errors bytea[],
    p_done uuid[], p_wake uuid[], p_spare integer, p_keep boolean,
    p_batch uuid, p_tenants uuid[], p_jobs uuid[], p_types integer[], p_timeouts_ms integer[]
)
RETURNS TABLE (
    verdict smallint, tenant_id uuid, job_id uuid, fence integer, attempt smallint, max_attempts smallint, losses smallint, hooks smallint,
    type_id integer, priority smallint, queue_id smallint, timeout_ms integer, ready_at timestamptz, started_at timestamptz,
    payload bytea, metadata bytea, retry bytea, trace bytea, ids uuid[], outbox bigint
)
LANGUAGE plpgsql AS $$
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

-- cancel_job_v1: end a job that isn't running, or ask its holder to end it.
--   answer  cancelled (ended here; outbox tells it), requested (it runs; its worker is told with the next renewal), absent (not open)
--   next_*  the job that leads its ordering key's line now, and the outbox row that tells it; NULL without one
CREATE FUNCTION cancel_job_v1(p_tenant uuid, p_job uuid, OUT answer text, OUT event_id uuid, OUT outbox bigint, OUT next_job uuid, OUT next_fence integer,
                              OUT next_type integer, OUT next_priority smallint, OUT next_queue smallint, OUT next_outbox bigint)
LANGUAGE plpgsql AS $$
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

-- park_backlog_v1: put ready jobs that no look-ahead had room for into their tenant's backlog; what isn't ready any more needs no place.
CREATE FUNCTION park_backlog_v1(p_tenants uuid[], p_jobs uuid[], p_queues smallint[]) RETURNS void
LANGUAGE plpgsql AS $$
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

-- fetch_backlog_v1: the next jobs of the backlogs of these queues, the same number of each tenant, marked woken; a backlog that is used up ends.
CREATE FUNCTION fetch_backlog_v1(p_queues smallint[], p_tenants integer, p_each integer)
RETURNS TABLE (tenant_id uuid, job_id uuid, fence integer, type_id integer, priority smallint, queue_id smallint)
LANGUAGE plpgsql AS $$
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
