-- read_kafka_topics: the identity of each topic when last seen.
SELECT topic, cluster_id, topic_id
  FROM kafka_topics
