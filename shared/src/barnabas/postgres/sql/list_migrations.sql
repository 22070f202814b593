-- list_migrations: the migrations that this database has.
SELECT name
  FROM schema_migrations
 ORDER BY name
