"""What a notifier reads from the environment."""

from typing import Annotated

from pydantic import Field, model_validator

from barnabas.domain.leases import Lease
from barnabas.runtime.settings import ServiceSettings


class NotifierSettings(ServiceSettings):
    """Settings of one notifier process."""

    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """How long a notifier that has stopped answering keeps its deliveries. Every process must have the same."""

    call_seconds: Annotated[float, Field(ge=0.1, le=120)] = 15.0
    """The one deadline over a whole call to an endpoint, from looking up its name to the last byte of its answer."""

    calls: Annotated[int, Field(ge=1, le=5_000)] = 512
    """Calls in flight at once in this process."""

    calls_per_tenant: Annotated[int, Field(ge=1, le=5_000)] = 128
    """Of those, how many may be of one tenant, so that hanging endpoints of one leave room for the others."""

    calls_per_endpoint: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Of those, how many may go to one endpoint."""

    lane_rows: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Deliveries of one endpoint that wait in memory; the rest waits in Postgres."""

    lanes_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Deliveries of all endpoints that wait in memory; of one tenant three quarters of these at most."""

    allow_private_endpoints: bool = False
    """Whether endpoints may be on loopback or in private networks; for development."""

    @model_validator(mode="after")
    def _lease_outlives_renewals(self) -> "NotifierSettings":
        # Raises with the reason and a value that would do.
        Lease(seconds=self.lease_seconds, renew_seconds=min(1.0, self.lease_seconds / 3))
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> "NotifierSettings":
        if self.calls_per_endpoint > self.calls:
            message = (
                f"BARNABAS_CALLS_PER_ENDPOINT={self.calls_per_endpoint} is above BARNABAS_CALLS={self.calls}: "
                f"BARNABAS_CALLS_PER_ENDPOINT={self.calls} would do"
            )
            raise ValueError(message)
        return self
