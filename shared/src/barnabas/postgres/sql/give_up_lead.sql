-- give_up_lead: a leader that stops lets the next one begin at once.
--   $1 role text   $2 holder uuid
DELETE FROM leaders
 WHERE role = $1
   AND holder = $2
