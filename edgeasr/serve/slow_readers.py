"""Clients that do not read what is sent to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from edgeasr.serve.hub import Hub


@asynccontextmanager
async def being_read(request: web.Request, hub: Hub) -> AsyncIterator[None]:
    """Around what is sent: a client that takes nothing for Limits.unread_s is cut off.

    errors: ConnectionError for such a client, and for one that is gone
    """
    try:
        async with asyncio.timeout(hub.limits.unread_s):
            yield
    except TimeoutError:
        hub.metrics.closed.labels("unread").inc()
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client takes nothing") from None
