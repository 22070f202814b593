"""The retry-scheduler process: brings back what waits.

Delayed records, due jobs, expired leases, untold outbox rows, lost records; and it keeps topics and partitions.
"""

from barnabas.runtime.service import Service, main
from barnabas_retry_scheduler.carry_delays import carry_delays
from barnabas_retry_scheduler.keep_partitions import keep_partitions
from barnabas_retry_scheduler.keep_topics import keep_topics
from barnabas_retry_scheduler.lead import keep_clock, lead
from barnabas_retry_scheduler.measure import measure_kafka, measure_postgres
from barnabas_retry_scheduler.poll_timers import poll_timers
from barnabas_retry_scheduler.reap_leases import reap_leases, reap_overdue_attempts
from barnabas_retry_scheduler.reconcile import reconcile
from barnabas_retry_scheduler.relay_outbox import relay_outbox
from barnabas_retry_scheduler.replay_events import replay_events
from barnabas_retry_scheduler.resources import open_resources, unready
from barnabas_retry_scheduler.scale_workers import scale_workers
from barnabas_retry_scheduler.settings import RetrySchedulerSettings
from barnabas_retry_scheduler.sweep_waiting import sweep_gates, sweep_types

SERVICE = Service(
    name="retry-scheduler",
    settings=RetrySchedulerSettings,
    resources=open_resources,
    loops=(
        carry_delays,
        lead,
        poll_timers,
        relay_outbox,
        reap_leases,
        reap_overdue_attempts,
        sweep_gates,
        sweep_types,
        reconcile,
        replay_events,
        keep_topics,
        keep_partitions,
        keep_clock,
        measure_postgres,
        measure_kafka,
        scale_workers,
    ),
    unready=unready,
)

if __name__ == "__main__":
    main(SERVICE)
