"""HTTP guard: a limit for what comes in, and headers for what goes out."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 2**20
"""Most bytes of a request's body; an entry of a ledger holds no more subjects than fit in it."""

SECONDS = 10.0
"""Longest that a body may take to arrive."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer that does not set them itself: a page loads nothing, and nobody keeps it."""


class HttpGuard:
    """Reads each body, up to a limit, before anything else runs, and adds headers to answers.

    The limit of FastAPI itself answers in plain text and waits for ever.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                held = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    held.setdefault(name, value)
            await send(message)

        await self._answer(scope, receive, send_with_headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                body = await _read(scope, receive)
        except TimeoutError:
            error = {"error": f"body: not there after {SECONDS:g} seconds; send it again"}
            await JSONResponse(error, 408, {"Connection": "close"})(scope, receive, send)
            return
        if body is None:
            error = {
                "error": f"body: at most {MOST_BODY:,} bytes; name fewer subjects in a request"
            }
            await JSONResponse(error, 413, {"Connection": "close"})(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body; None where it is too long."""
    sizes = [value for name, value in scope["headers"] if name == b"content-length"]
    if any(not size.isdigit() or int(size) > MOST_BODY for size in sizes):
        return None
    body, more = b"", True
    while more and len(body) <= MOST_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return None if len(body) > MOST_BODY else body
