"""What a retry-scheduler reads from the environment."""

from typing import Annotated

from pydantic import Field, model_validator

from barnabas.domain.leases import Lease
from barnabas.runtime.settings import ServiceSettings


class RetrySchedulerSettings(ServiceSettings):
    """Settings of one retry-scheduler process."""

    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """How long a worker that has stopped answering keeps its jobs. Every process must have the same."""

    leader_lease_seconds: Annotated[float, Field(ge=1, le=60)] = 8.0
    """How long a retry-scheduler that has stopped answering keeps the lead; delays go on without one."""

    retention_days: Annotated[int, Field(ge=1, le=365)] = 7
    """Days for which payloads, results, attempts and deliveries are kept after the day they belong to."""

    republish_per_second: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Records that Kafka has lost are sent again at this rate at the most."""

    results_replay_minutes: Annotated[int, Field(ge=0, le=10_080)] = 60
    """When the results topic was wiped: events of jobs that ended so recently, and have no delivery, are sent again."""

    topic_replication: Annotated[int, Field(ge=1, le=10)] = 1
    """Replicas of each topic that has to be made; at most the number of brokers."""

    @model_validator(mode="after")
    def _lease_outlives_renewals(self) -> "RetrySchedulerSettings":
        # Raises with the reason and a value that would do.
        Lease(seconds=self.lease_seconds, renew_seconds=min(1.0, self.lease_seconds / 3))
        return self
