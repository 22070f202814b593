-- describe_login: what the connected login may do, so that a service can refuse one that may do too much.
SELECT rolname AS name,
       rolsuper AS superuser,
       rolbypassrls AS bypasses_row_security,
       pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = to_regclass('public.jobs')), 'MEMBER') AS owns_jobs
  FROM pg_roles
 WHERE rolname = current_user
