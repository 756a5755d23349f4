"""The server of the page: one HTML file, a stream of looks (SSE), where a process is, metrics; on the loopback.

Whoever asks for more than the empty page must send the token, as ``Authorization: Bearer``. It is in no cookie, so no other
site can have a browser send it; and it stands behind the ``#`` of the address, which browsers send to nobody. A request
must name the loopback as its host, so no other name can be led here (DNS rebinding), and come from the page itself if it
says where it comes from.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import webbrowser
from collections.abc import AsyncIterator
from dataclasses import asdict
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lab.errors import BadSettings, LabError
from lab.watching import stack
from producer import output
from producer.watching.fleet import Watched
from producer.watching.page import faults, metrics
from producer.watching.page.hub import Hub

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 4096
"""Of a request's body."""


class Guard:
    """Lets through what comes from the page itself, and from whoever has the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http" and (refusal := self._refusal(Request(scope))):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if _name(f"//{host}") not in LOOPBACK:
            return PlainTextResponse("This page is for the loopback: http://127.0.0.1\n", 421)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("This page is for itself: another one may not ask.\n", 403)
        if request.url.path in ("/", "/health"):
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token):
            return PlainTextResponse("The token is missing or wrong.\n", 401, {"WWW-Authenticate": "Bearer"})
        return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Page:
    """What the server answers.

    Args:
        watched: The fleet.
        with_faults: Whether faults may be caused.
    """

    def __init__(self, watched: Watched, with_faults: bool) -> None:
        self._watched, self._with_faults = watched, with_faults
        self._hub = Hub(watched)
        self._html = (files("producer.watching.page") / "page.html").read_text()

    def app(self, token: str) -> Starlette:
        """The application."""
        routes = [
            Route("/", self._page),
            Route("/health", self._health),
            Route("/looks", self._looks),
            Route("/metrics", self._metrics),
            Route("/stack", self._stack, methods=["POST"]),
        ]
        if self._with_faults:
            routes.append(Route("/fault", self._fault, methods=["POST"]))
        return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)])

    async def _page(self, _request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        html = self._html.replace("NONCE", nonce).replace("FAULTS", "yes" if self._with_faults else "no")
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
                   "X-Content-Type-Options": "nosniff"}  # fmt: skip
        return HTMLResponse(html, headers=headers)

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _looks(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[dict[str, str]]:
            async for line in self._hub.follow():
                yield {"data": line}

        return EventSourceResponse(events(), ping=15)

    async def _metrics(self, _request: Request) -> Response:
        try:
            return PlainTextResponse(metrics.text(output.plain(await self._hub.latest())), media_type=metrics.TYPE)
        except LabError as exc:
            return PlainTextResponse(f"# {exc.message}\n", 503)

    async def _stack(self, request: Request) -> Response:
        said = await _body(request)
        if not self._watched.settings.authkey:
            return JSONResponse({"error": "Only who holds the fleet's authkey can ask a process where it is."}, 409)
        return await _told(lambda: asdict(self._ask(str(said.get("run")), str(said.get("process")))))

    def _ask(self, run: str, process: str) -> stack.Stack:
        return stack.ask(self._watched.settings, self._watched.store, run, process)

    async def _fault(self, request: Request) -> Response:
        said = {name: str(value) for name, value in (await _body(request)).items()}
        what = said.get("what", "")
        if what not in (*faults.SIGNALS, "cut"):
            return JSONResponse({"error": "There is no such fault."}, 400)
        run, process = said.get("run", ""), said.get("process", "")
        return await _told(lambda: {"done": faults.cause(self._watched, what, run, process)})


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            return {}
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


async def _told(do: Any) -> Response:
    try:
        return JSONResponse(await asyncio.to_thread(do))
    except LabError as exc:
        return JSONResponse({"error": exc.message}, 409)


def serve(watched: Watched, address: str, port: int, token: str, with_faults: bool, browser: bool) -> None:
    """Serve until Ctrl-C.

    Args:
        watched: The fleet.
        address: To listen on.
        port: Likewise; 0 for a free one.
        token: What a browser must send; empty for one that is made here and printed.
        with_faults: Whether faults may be caused.
        browser: Whether to open a browser.

    Raises:
        BadSettings: It cannot listen there.
    """
    printed = f"#{(token := secrets.token_urlsafe(24))}" if not token else ""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(128)  # before it is said that one can connect
    except OSError as exc:
        raise BadSettings(f"Cannot listen on {address}:{port}: {exc.strerror}.", "Choose another: --port 0") from exc
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/{printed}"
    output.write(f"{url}\n{'Faults can be caused there. ' if with_faults else ''}Ctrl-C ends it.\n")
    if browser:
        webbrowser.open(url)
    app = Page(watched, with_faults).app(token)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
