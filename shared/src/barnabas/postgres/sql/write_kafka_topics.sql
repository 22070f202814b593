-- write_kafka_topics: these topics have been seen, and what another identity had lost has been made good.
--   $1 topics text[]   $2 cluster_ids text[]   $3 topic_ids text[]
INSERT INTO kafka_topics (topic, cluster_id, topic_id)
SELECT seen.topic, seen.cluster_id, seen.topic_id
  FROM unnest($1::text[], $2::text[], $3::text[]) AS seen (topic, cluster_id, topic_id)
 ORDER BY seen.topic
    ON CONFLICT ON CONSTRAINT kafka_topics_pkey DO UPDATE
       SET cluster_id = excluded.cluster_id, topic_id = excluded.topic_id
