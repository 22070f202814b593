-- raise_revision: tell all processes that something which they keep in memory has changed; held until the transaction ends.
--   $1 name text
UPDATE revisions
   SET revision = revision + 1
 WHERE name = $1
