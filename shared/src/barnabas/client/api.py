"""The two clients: `Client` blocks, `AsyncClient` awaits. Their methods are the functions of `calls.py` and `flows.py`.

    client = Client("http://127.0.0.1:8080", api_key)
    submitted = client.submit("scoring", {"customer": 7}, idempotency_key="order-7")
    print(client.wait(submitted.id).result)

Each method takes the arguments of its function and returns what that promises; lists are iterators over all pages.
"""

import asyncio
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from barnabas.client import calls, flows
from barnabas.client.calls import Answer, Call
from barnabas.client.flows import Done, Flow, NoAnswer, Rest, Retries, Tries
from barnabas.client.models import Page

P = ParamSpec("P")
T = TypeVar("T")

# httpx's pool walks all its connections for each request: few are faster than many.
_LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=8)
# In these the request was never sent: doing it again can't do it twice.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Method(Generic[P, T]):
    """A function of `calls` or `flows` as a method of `Client`."""

    def __init__(self, build: Callable[P, Call[T] | Flow[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, T]: ...
    def __get__(self, client: "Client | None", owner: type) -> Self | Callable[P, T]:
        if client is None:
            return self

        @functools.wraps(self._build)
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return client.carry_out(self._build(*args, **kwargs))

        return method


class _List(Generic[P, T]):
    """A list of `calls` as a method of `Client`."""

    def __init__(self, build: Callable[P, Call[Page[T]]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, Iterator[T]]: ...
    def __get__(self, client: "Client | None", owner: type) -> Self | Callable[P, Iterator[T]]:
        if client is None:
            return self

        @functools.wraps(self._build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return client.walk(self._build(*args, **kwargs))

        return method


class _AsyncMethod(Generic[P, T]):
    """A function of `calls` or `flows` as a method of `AsyncClient`."""

    def __init__(self, build: Callable[P, Call[T] | Flow[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: "AsyncClient | None", owner: type) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        if client is None:
            return self

        @functools.wraps(self._build)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await client.carry_out(self._build(*args, **kwargs))

        return method


class _AsyncList(Generic[P, T]):
    """A list of `calls` as a method of `AsyncClient`."""

    def __init__(self, build: Callable[P, Call[Page[T]]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: "AsyncClient | None", owner: type) -> Self | Callable[P, AsyncIterator[T]]:
        if client is None:
            return self

        @functools.wraps(self._build)
        def method(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
            return client.walk(self._build(*args, **kwargs))

        return method


class Client:
    """The blocking client. Safe to share between threads; close it, or use it in a `with`.

    `timeout` limits, in seconds, connecting and each silence of the server; a wait's own time comes on top.
    """

    submit = _Method(calls.submit)
    submit_batch = _Method(flows.submit_batch)
    get = _Method(calls.get)
    wait = _Method(flows.wait)
    list = _List(calls.list_jobs)
    attempts = _Method(calls.attempts)
    explain = _Method(calls.explain)
    cancel = _Method(calls.cancel)
    retry = _Method(calls.retry)
    create_endpoint = _Method(calls.create_endpoint)
    endpoints = _List(calls.list_endpoints)
    delete_endpoint = _Method(calls.delete_endpoint)
    deliveries = _List(calls.list_deliveries)
    dlq = _List(calls.list_dlq)
    redrive = _Method(calls.redrive)
    create_tenant = _Method(calls.create_tenant)
    tenants = _List(calls.list_tenants)
    create_key = _Method(calls.create_key)
    keys = _List(calls.list_keys)
    delete_key = _Method(calls.delete_key)
    limits = _Method(calls.limits)
    set_limits = _Method(calls.set_limits)
    queues = _Method(calls.queues)
    set_queue = _Method(calls.set_queue)

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 30.0, retries: Retries | None = None) -> None:
        self._timeout = timeout
        self._retries = Retries() if retries is None else retries
        self._http = httpx.Client(base_url=_checked(base_url), headers=_headers(api_key), limits=_LIMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def carry_out(self, work: Call[T] | Flow[T]) -> T:
        """Make a call, with its retries, or every step of a flow."""
        if isinstance(work, Call):
            return self._call(work)
        try:
            step = next(work)
            while True:
                if isinstance(step, Rest):
                    time.sleep(step.seconds)
                    step = next(work)
                else:
                    step = work.send(self._call(step))
        except StopIteration as done:
            value: T = done.value
            return value

    def walk(self, call: Call[Page[T]]) -> Iterator[T]:
        """All that is on a list, page by page."""
        page = self._call(call)
        yield from page.items
        while page.next_cursor is not None:
            page = self._call(call.after(page.next_cursor))
            yield from page.items

    def _call(self, call: Call[T]) -> T:
        tries = Tries(call, self._retries)
        while True:
            verdict = tries.judge(self._send(call), jitter=random.random())
            if isinstance(verdict, Done):
                value: T = verdict.value
                return value
            time.sleep(verdict.seconds)

    def _send(self, call: Call[Any]) -> Answer | NoAnswer:
        try:
            return _answer(self._http.request(**_request(call, self._timeout)))
        except httpx.TransportError as error:
            return _no_answer(error)


class AsyncClient:
    """The async client. Use it on one event loop; close it, or use it in an `async with`. Arguments as for `Client`."""

    submit = _AsyncMethod(calls.submit)
    submit_batch = _AsyncMethod(flows.submit_batch)
    get = _AsyncMethod(calls.get)
    wait = _AsyncMethod(flows.wait)
    list = _AsyncList(calls.list_jobs)
    attempts = _AsyncMethod(calls.attempts)
    explain = _AsyncMethod(calls.explain)
    cancel = _AsyncMethod(calls.cancel)
    retry = _AsyncMethod(calls.retry)
    create_endpoint = _AsyncMethod(calls.create_endpoint)
    endpoints = _AsyncList(calls.list_endpoints)
    delete_endpoint = _AsyncMethod(calls.delete_endpoint)
    deliveries = _AsyncList(calls.list_deliveries)
    dlq = _AsyncList(calls.list_dlq)
    redrive = _AsyncMethod(calls.redrive)
    create_tenant = _AsyncMethod(calls.create_tenant)
    tenants = _AsyncList(calls.list_tenants)
    create_key = _AsyncMethod(calls.create_key)
    keys = _AsyncList(calls.list_keys)
    delete_key = _AsyncMethod(calls.delete_key)
    limits = _AsyncMethod(calls.limits)
    set_limits = _AsyncMethod(calls.set_limits)
    queues = _AsyncMethod(calls.queues)
    set_queue = _AsyncMethod(calls.set_queue)

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 30.0, retries: Retries | None = None) -> None:
        self._timeout = timeout
        self._retries = Retries() if retries is None else retries
        self._http = httpx.AsyncClient(base_url=_checked(base_url), headers=_headers(api_key), limits=_LIMITS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def carry_out(self, work: Call[T] | Flow[T]) -> T:
        """Make a call, with its retries, or every step of a flow."""
        if isinstance(work, Call):
            return await self._call(work)
        try:
            step = next(work)
            while True:
                if isinstance(step, Rest):
                    await asyncio.sleep(step.seconds)
                    step = next(work)
                else:
                    step = work.send(await self._call(step))
        except StopIteration as done:
            value: T = done.value
            return value

    async def walk(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """All that is on a list, page by page."""
        page = await self._call(call)
        for each in page.items:
            yield each
        while page.next_cursor is not None:
            page = await self._call(call.after(page.next_cursor))
            for each in page.items:
                yield each

    async def _call(self, call: Call[T]) -> T:
        tries = Tries(call, self._retries)
        while True:
            verdict = tries.judge(await self._send(call), jitter=random.random())
            if isinstance(verdict, Done):
                value: T = verdict.value
                return value
            await asyncio.sleep(verdict.seconds)

    async def _send(self, call: Call[Any]) -> Answer | NoAnswer:
        try:
            return _answer(await self._http.request(**_request(call, self._timeout)))
        except httpx.TransportError as error:
            return _no_answer(error)


def _checked(base_url: str) -> str:
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"the API's address begins with http:// or https://, not {base_url!r}")
    return base_url


def _headers(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}", "User-Agent": "barnabas-python", "Accept": "application/json"}


def _request(call: Call[Any], timeout: float) -> dict[str, Any]:
    content_type = {} if call.body is None else {"Content-Type": "application/json"}
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params,
        "content": call.body,
        "headers": {**call.headers, **content_type},
        "timeout": httpx.Timeout(timeout, read=timeout + call.hold_seconds),
        # A redirect would carry the credential to somewhere else.
        "follow_redirects": False,
    }


def _answer(response: httpx.Response) -> Answer:
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def _no_answer(error: httpx.TransportError) -> NoAnswer:
    return NoAnswer(f"{type(error).__name__}: {error}", was_sent=not isinstance(error, _NEVER_SENT))
