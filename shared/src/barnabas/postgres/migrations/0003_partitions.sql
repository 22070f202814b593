-- 0003_partitions: day partitions made ahead and dropped by the product itself.
--
-- A service login owns no table, so these run with their owner's rights. No DEFAULT partition: a row without a day is an error to see.

-- partition_bounds_v1: the first value of a UTC day in a table's partition key, as a literal.
CREATE FUNCTION partition_bound_v1(p_parent text, p_day date) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_parent = 'job_attempts' THEN quote_literal(p_day::text || ' 00:00:00+00')
        -- The smallest UUIDv7 of a day: 48 bits of milliseconds, the rest zero.
        ELSE quote_literal(regexp_replace(lpad(to_hex((extract(epoch FROM p_day::timestamp AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0'),
                                          '^(.{8})(.{4})$', '\1-\2-0000-0000-000000000000'))
    END
$$;

-- make_partitions_v1: the days from p_back ago to p_ahead ahead, of every table that is cut by day; returns what it made.
CREATE FUNCTION make_partitions_v1(p_back integer DEFAULT 2, p_ahead integer DEFAULT 3) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
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

-- drop_partition_v1: drop one day of one table; false when something open still needs it, or it isn't there.
-- Payloads of open jobs and open dead letters are copied aside first; results and deliveries wait until no dead letter needs them.
CREATE FUNCTION drop_partition_v1(p_parent text, p_day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
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

-- The functions above see every tenant's rows although row security is forced on their owner.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobs', 'job_payloads', 'job_payloads_kept', 'job_results', 'dead_letters', 'deliveries'] LOOP
        EXECUTE format('CREATE POLICY owner_retention ON %I TO barnabas_owner USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION make_partitions_v1(integer, integer), drop_partition_v1(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_partitions_v1(integer, integer), drop_partition_v1(text, date) TO barnabas_engine;

SELECT make_partitions_v1();
