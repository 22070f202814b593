"""What a retry-scheduler reads from the environment."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from barnabas.contract import topics
from barnabas.domain.leases import Lease
from barnabas.domain.scaling import ScalingPolicy
from barnabas.runtime.settings import ServiceSettings


class RetrySchedulerSettings(ServiceSettings):
    """Settings of one retry-scheduler process."""

    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """How long a worker that has stopped answering keeps its jobs. Every process must have the same."""

    ordered_dead_letters: Literal["continue", "block"] = "continue"
    """As for the worker: what a dead letter with an ordering key does to its line."""

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

    workers_min: Annotated[int, Field(ge=1, le=24)] = 1
    """The fewest workers that the scaling asks for."""

    workers_max: Annotated[int, Field(ge=1, le=1_000)] = 24
    """The most; more than 24, the partitions of a work topic, are never asked for."""

    workers_drain_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """Within how long enough workers to do away with a backlog are asked for."""

    workers_up_seconds: Annotated[float, Field(ge=1, le=3_600)] = 10.0
    """The least time between two raises: about what a worker takes to start."""

    workers_down_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """How long fewer workers must have been enough before fewer are asked for."""

    workers_look_seconds: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    """How often that is decided; half as often while nothing moves."""

    worker_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 50.0
    """Jobs a second that a worker is taken to do until one was seen busy."""

    @property
    def scaling(self) -> ScalingPolicy:
        """The bounds of the number of workers, and how fast it changes."""
        return ScalingPolicy(
            workers_min=self.workers_min,
            workers_max=self.workers_max,
            partitions=topics.WORK_PARTITIONS,
            drain_seconds=self.workers_drain_seconds,
            up_seconds=self.workers_up_seconds,
            down_seconds=self.workers_down_seconds,
            default_rate=self.worker_rate,
        )

    @model_validator(mode="after")
    def _workers_have_a_range(self) -> "RetrySchedulerSettings":
        if self.workers_min > self.workers_max:
            raise ValueError(
                f"BARNABAS_WORKERS_MIN={self.workers_min} is above BARNABAS_WORKERS_MAX={self.workers_max}; "
                f"BARNABAS_WORKERS_MAX={self.workers_min} would do"
            )
        return self

    @model_validator(mode="after")
    def _lease_outlives_renewals(self) -> "RetrySchedulerSettings":
        # Raises with the reason and a value that would do.
        Lease(seconds=self.lease_seconds, renew_seconds=min(1.0, self.lease_seconds / 3))
        return self
