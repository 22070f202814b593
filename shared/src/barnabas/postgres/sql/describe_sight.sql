-- describe_sight: whether the connected login sees every tenant's rows, as whoever judges all of them has to; no row where there is no schema.
SELECT current_user::text AS name,
       login.rolsuper OR login.rolbypassrls OR EXISTS (
           SELECT 1
             FROM pg_policy AS policy
            WHERE policy.polrelid = to_regclass('public.timers')
              AND policy.polname IN ('engine_batches', 'owner_looks')
              AND EXISTS (SELECT 1 FROM unnest(policy.polroles) AS member (role) WHERE pg_has_role(current_user, member.role, 'USAGE'))
       ) AS sees_all
  FROM pg_roles AS login
 WHERE login.rolname = current_user
   AND to_regclass('public.timers') IS NOT NULL
