-- take_lead: become or stay the leader of a role; no row while another one's lease holds.
--   $1 role text   $2 holder uuid   $3 lease interval
INSERT INTO leaders (role, holder, lease_until)
SELECT $1, $2, clock_timestamp() + $3
 -- A follower asks every second: it looks before it touches the row.
 WHERE NOT EXISTS (SELECT 1 FROM leaders AS other WHERE other.role = $1 AND other.holder <> $2 AND other.lease_until >= clock_timestamp())
    ON CONFLICT ON CONSTRAINT leaders_pkey DO UPDATE
       SET holder = excluded.holder, lease_until = excluded.lease_until
     WHERE leaders.holder = excluded.holder
        OR leaders.lease_until < clock_timestamp()
RETURNING true
