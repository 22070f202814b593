-- 0008_operators: what people who keep the system need: the owner's login sees what `barnabas verify` and `barnabas doctor` look at, and redrives
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
