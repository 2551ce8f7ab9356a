"""The web server: Gradio's page behind a policy that lets the browser talk to this host alone."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# Both are read when the libraries are imported: nothing is reported, nothing is fetched.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import fastapi
import gradio
import uvicorn
from starlette.requests import ClientDisconnect

from app.queue import paths, queue
from app.web.page import CSS, HEAD, page, theme
from erase.files import make_folder

UPLOAD = "20mb"
MOST = 22 * 2**20  # bytes of one request: an upload and what is around it; more is not even read
SESSIONS = 300  # remembered at a time, of pages and of programs, whose every call is one of its own: 0.3 MB each
HANDLERS = 8  # at a time, of one kind; they only read and write small files
# What a page may load and whom it may ask: this host. Gradio's scripts build functions and styles at run time.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
CLOSE = (b"connection", b"close")
ELSEWHERE = re.compile(rb"<(?:meta|link)\b[^>]*https?://[^>]*>")  # tags of Gradio's page that name other hosts

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def application(login: tuple[str, str] | None = None) -> App:
    """The page as an ASGI application; with a login, nothing answers without it."""
    make_folder(paths.runs())
    make_folder(paths.home() / "downloads")
    queue.recover()
    pages = page().queue(default_concurrency_limit=HANDLERS)
    pages.state_session_capacity = SESSIONS
    served = gradio.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        pages,
        path="/",
        auth=None if login is None else _checker(login),
        auth_message=None if login is None else "Concept erasure studio",
        allowed_paths=[str(paths.home() / "downloads")],
        max_file_size=UPLOAD,
        show_error=True,
        ssr_mode=False,
        footer_links=["api"],
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    return bounded(confined(served))


def serve_forever(host: str, port: int, login: tuple[str, str] | None) -> None:
    """Serve until interrupted."""
    served = application(login)
    shown = f"[{host}]" if ":" in host else host
    print(f"The studio is open at http://{shown}:{port} (Ctrl-C closes the page; tasks go on)", file=sys.stderr)
    uvicorn.run(served, host=host, port=port, log_level="warning")  # type: ignore[arg-type]


def confined(served: App) -> App:
    """The same application, its answers with HEADERS, its pages without tags that name other hosts."""

    async def answer(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await served(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                kind = dict(message["headers"]).get(b"content-type", b"")
                if kind.startswith(b"text/html"):
                    start.update(message)
                    return
            elif start:
                parts.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                body = ELSEWHERE.sub(b"", b"".join(parts))
                length = (b"content-length", str(len(body)).encode())
                kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
                await send({**start, "headers": [*kept, length]})
                message = {"type": "http.response.body", "body": body}
            await send(message)

        # A compressed page could not be read here.
        plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await served({**scope, "headers": plain}, receive, sent)

    return answer


def bounded(served: App) -> App:
    """The same application for requests of up to MOST bytes: of a larger one no more than that is read."""

    async def answer(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        announced = dict(scope.get("headers", ())).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > MOST:
            await _refuse(send)
            return
        taken, begun = 0, False

        async def received() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= MOST else {"type": "http.disconnect"}

        async def sent(message: Message) -> None:
            nonlocal begun
            if taken > MOST:  # it is said to a visitor who seems to have left
                return
            begun = True
            if message.get("status") == 413:  # hang up, or the rest would still be read, if only to be thrown away
                message = {**message, "headers": [*message["headers"], CLOSE]}
            await send(message)

        with contextlib.suppress(ClientDisconnect):
            await served(scope, received, sent)
        if taken > MOST and not begun:
            await _refuse(send)

    return answer


async def _refuse(send: Callable[[Message], Awaitable[None]]) -> None:
    """Answer a request that is too large, and hang up."""
    text = f"A request may hold {MOST // 2**20} MB. A model is not uploaded: put it on this machine and give its path."
    headers = [*HEADERS, (b"content-type", b"text/plain; charset=utf-8"), CLOSE]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _checker(login: tuple[str, str]) -> Callable[[str, str], bool]:
    def check(user: str, password: str) -> bool:
        # Both are compared, each in constant time: how long it takes tells nothing.
        right = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip((user, password), login, strict=True)]
        return all(right)

    return check
