-- diagnose_server: what the server says of itself and of the service logins.
-- rows:  one; `unlimited` are the service logins without one of the four time-outs.
SELECT clock_timestamp() AS now, current_setting('server_version') AS version, pg_is_in_recovery() AS is_standby,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only, pg_postmaster_start_time() AS started_at,
       pg_database_size(current_database()) AS database_bytes, current_setting('max_connections')::integer AS connections_max,
       (SELECT count(*) FROM pg_stat_activity AS session WHERE session.backend_type = 'client backend')::integer AS connections,
       (SELECT min(session.xact_start) FROM pg_stat_activity AS session WHERE session.datname = current_database()) AS oldest_transaction_at,
       COALESCE((
           SELECT array_agg(login.rolname::text ORDER BY login.rolname)
             FROM pg_roles AS login
            WHERE login.rolname IN ('barnabas_engine', 'barnabas_api')
              AND EXISTS (SELECT 1
                            FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'])
                              AS wanted (name)
                           WHERE NOT EXISTS (SELECT 1 FROM unnest(login.rolconfig) AS given (entry) WHERE given.entry LIKE wanted.name || '=%'))
       ), '{}') AS unlimited
