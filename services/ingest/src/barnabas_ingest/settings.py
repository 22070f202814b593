"""What ingest reads from the environment."""

from typing import Annotated

from pydantic import Field, SecretStr

from barnabas.runtime.settings import ServiceSettings


class IngestSettings(ServiceSettings):
    """Settings of one ingest process."""

    http_host: str = "127.0.0.1"
    """Address of the public port."""

    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """The public port; 0 takes a free one and logs it."""

    http_shared: bool = False
    """Whether other ingest processes of this user take connections on the same port; the kernel shares them out."""

    admin_key: Annotated[SecretStr, Field(min_length=16, examples=["32 random characters"])]
    """The credential of `/v1/admin`; no tenant's key opens it."""

    postgres_api: Annotated[
        SecretStr, Field(min_length=1, examples=["postgresql://barnabas_api:...@127.0.0.1:5432/barnabas"])
    ]
    """Postgres with the login that acts for one tenant at a time, under row security."""

    http_connections_max: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Open connections, and requests in progress; above it 503."""

    queue_bytes_max: Annotated[int, Field(ge=16 * 1024 * 1024)] = 64 * 1024 * 1024
    """Bodies held in memory until they are stored; above it 503. One tenant may hold a quarter."""

    request_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """How long a request may take to arrive, and an answer to be taken; then the connection is closed."""

    queues_max: Annotated[int, Field(ge=1, le=1_000)] = 32
    """How many queues there may be, counted where one is made: each has 4 topics of 24 partitions."""

    topic_replication: Annotated[int, Field(ge=1, le=10)] = 1
    """Replicas of each topic that has to be made; at most the number of brokers."""

    allow_private_endpoints: bool = False
    """Whether webhooks may go to addresses that are not public; for development."""
