"""Waiting for an event with a limit: the event is what wakes a loop, the limit is for what nobody thought of."""

import asyncio


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, at most so long; false when it wasn't."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return event.is_set()
