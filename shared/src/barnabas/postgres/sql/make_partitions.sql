-- make_partitions: the days around today that aren't there yet; see make_partitions_v1.
SELECT * FROM make_partitions_v1() AS made (name)
