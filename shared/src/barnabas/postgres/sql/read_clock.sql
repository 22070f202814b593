-- read_clock: the database's time, by which leases and due times are judged.
SELECT clock_timestamp()
