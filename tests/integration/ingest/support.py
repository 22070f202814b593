"""An ingest inside the test's own process, a tenant's view of it, and a way to take Postgres away."""

import asyncio
import io
import json
import socket
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from barnabas.runtime.service import Service, serve
from barnabas.runtime.settings import load
from barnabas.runtime.stop import Stop
from barnabas_ingest.housekeeping import forget_told_rows
from barnabas_ingest.intake import take_intake
from barnabas_ingest.main import SERVICE
from barnabas_ingest.resources import Resources
from barnabas_ingest.server import serve_http
from barnabas_ingest.settings import IngestSettings
from barnabas_local.database import Logins
from tests.support.eventually import eventually

ADMIN_KEY = "the-administrator-s-own-key-of-the-tests"
# Nobody listens there.
NO_KAFKA = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.body["code"])

    @property
    def pointers(self) -> list[str]:
        """Where the problem lies."""
        return [each["pointer"] for each in self.body["errors"]]


class Caller:
    """Speaks to one ingest with one credential."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, key: str | None, tenant_id: uuid.UUID | None = None
    ) -> None:
        self._http = http
        self.url = url
        self.key = key
        self.tenant_id = tenant_id

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; `body` goes as JSON, `raw` as it is."""
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        async with self._http.request(method, self.url + path, data=_stream(data), headers=sent) as response:
            text = await response.read()
            return Reply(response.status, json.loads(text) if text else None, response.headers)

    async def get(self, path: str) -> Reply:
        return await self.call("GET", path)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.call("POST", path, body, **more)

    async def submit(self, payload: Any = None, **fields: Any) -> str:
        """A job's id."""
        reply = await self.post("/v1/jobs", {"type": "echo", "payload": payload, **fields})
        assert reply.status == 202, reply.body
        return str(reply.body["id"])


def _stream(data: bytes | None) -> io.BytesIO | bytes | None:
    # The client warns of large bytes.
    return io.BytesIO(data) if data is not None and len(data) > 65_536 else data


class RunningIngest:
    """One ingest process' worth of loops; `resources` are its own, for looking in."""

    def __init__(self, http: aiohttp.ClientSession, settings: IngestSettings, loops: Sequence[Any]) -> None:
        self.stop = Stop()
        self.resources: Resources | None = None
        self._http = http
        self._settings = settings
        self._loops = loops
        self._task: asyncio.Task[int] | None = None

    @property
    def url(self) -> str:
        assert self.resources is not None
        return f"http://127.0.0.1:{self.resources.http_port}"

    @property
    def port(self) -> int:
        assert self.resources is not None
        return self.resources.http_port

    @property
    def admin(self) -> Caller:
        return Caller(self._http, self.url, ADMIN_KEY)

    @property
    def nobody(self) -> Caller:
        return Caller(self._http, self.url, None)

    async def tenant(self) -> Caller:
        """A new tenant, with a key."""
        made = await self.admin.post("/v1/admin/tenants", {"name": uuid.uuid4().hex})
        assert made.status == 201, made.body
        key = await self.admin.post(f"/v1/admin/tenants/{made.body['id']}/keys", {"name": "test"})
        assert key.status == 201, key.body
        return Caller(self._http, self.url, key.body["key"], uuid.UUID(made.body["id"]))

    async def start(self) -> None:
        @asynccontextmanager
        async def watched(settings: IngestSettings) -> AsyncIterator[Resources]:
            async with SERVICE.resources(settings) as resources:
                self.resources = resources
                yield resources

        service = Service(
            name=SERVICE.name,
            settings=IngestSettings,
            resources=watched,
            loops=tuple(self._loops),
            unready=SERVICE.unready,
        )
        self._task = asyncio.create_task(serve(service, self._settings, self.stop))
        await eventually(lambda: self.resources is not None or self.over)
        assert not self.over, "ingest did not start"

    @property
    def over(self) -> bool:
        return self._task is not None and self._task.done()

    async def end(self) -> int:
        """SIGTERM's effect, and the exit code."""
        assert self._task is not None
        self.stop.set()
        return await self._task


@asynccontextmanager
async def running_ingest(
    kafka: str, logins: Logins, *, with_intake: bool = False, **overrides: str
) -> AsyncIterator[RunningIngest]:
    """An ingest until the block ends."""
    environment = {
        "BARNABAS_KAFKA": kafka,
        "BARNABAS_POSTGRES": logins.engine_dsn,
        "BARNABAS_POSTGRES_API": logins.api_dsn,
        "BARNABAS_ADMIN_KEY": ADMIN_KEY,
        "BARNABAS_HTTP_PORT": "0",
        "BARNABAS_DRAIN_SECONDS": "8",
    } | {f"BARNABAS_{name.upper()}": value for name, value in overrides.items()}
    loops = (serve_http, forget_told_rows, *((take_intake,) if with_intake else ()))
    # Our own limit on connections would hide the server's.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        ingest = RunningIngest(http, load(IngestSettings, environment), loops)
        try:
            await ingest.start()
            yield ingest
        finally:
            await ingest.end()


class Wire:
    """A TCP proxy in front of Postgres that can be cut: existing connections die, new ones are refused."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        # Bound and never listening: while the wire is cut its port refuses connections, and nobody else is given it.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    async def __aenter__(self) -> "Wire":
        self._place.bind(("127.0.0.1", 0))
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        self._place.close()

    @property
    def _port(self) -> int:
        return int(self._place.getsockname()[1])

    def through(self, dsn: str) -> str:
        """The same DSN by way of this wire."""
        parts = urlsplit(dsn)
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self._port}").geturl()

    async def cut(self) -> None:
        """Postgres is away."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def restore(self) -> None:
        """Postgres is back, at the same address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname is not None
        assert self._target.port is not None
        server = self._server
        try:
            upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream[1]}
        if server is None or server is not self._server:
            # It was cut while this connection was being made: nothing may get through.
            writer.transport.abort()
            upstream[1].transport.abort()
        await asyncio.gather(self._copy(reader, upstream[1]), self._copy(upstream[0], writer))
        self._writers -= {writer, upstream[1]}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # cut
        writer.transport.abort()
