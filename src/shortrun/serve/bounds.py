"""What a request may be, as layers around the application: whose it is, how large, how many at once, and that none is logged.

A page of another site can make a browser send requests here, and by a name of its own that suddenly points to 127.0.0.1 (DNS
rebinding) it could read the answers. So a host must be an address or a name that this server was given, and an origin, where
a browser names one, must be this page's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 32_768
"""Of a request's body: 2,000 characters in JSON take 24,000 at most."""
BODY_SECONDS = 10.0
"""In which a request's body has to arrive."""
MOST_AT_ONCE = 64
"""Requests that are being answered."""
UNFORESEEN = "This should not have happened; the terminal says where it did."
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def bounded(app: ASGIApp, host: str) -> ASGIApp:
    """The application behind all layers; `host` is the address or name that the server was given."""
    return Sealed(KnownHost(AtOnce(WholeBody(app)), host))


async def refuse(send: Send, status: int, sentence: str, more: Mapping[str, str] | None = None) -> None:
    """Answers with a sentence, and ends the connection, whose body may not have been read."""
    body = json.dumps({"error": sentence}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **(more or {}),
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


class Sealed:
    """Puts the headers on every answer, and turns what nobody foresaw into a sentence that repeats nothing.

    A traceback's last line may hold what a visitor has typed, so only its kind and its place are told on standard error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def sealed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            await self.app(scope, receive, sealed)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f"shortrun: {type(error).__name__} in {Path(place.filename).name}:{place.lineno}", file=sys.stderr)
            if not started:
                await refuse(sealed, 500, UNFORESEEN)


class KnownHost:
    """Refuses requests by a foreign name, and those that another site's page has caused."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.local = is_loopback(host)
        self.names = {"localhost", host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self.refusal(scope)):
            await refuse(send, *refusal)
            return
        await self.app(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence, or None where the request is this page's own."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.knows(hosts[0]):
            return 421, "This server answers to its own address alone, and the request's Host names another."
        origins = headers.getlist("origin")
        if origins and origins != [f"http://{hosts[0]}"]:
            return 403, "This request comes from a page of another origin."
        if scope["path"].startswith("/api/") and headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            return 403, "This request comes from a page of another site."
        return None

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server. Whoever can reach an address may use it; a name may be anybody's."""
        name = _name(host)
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.local


class AtOnce:
    """Refuses requests past the number that are answered at once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.now >= MOST_AT_ONCE:
            await refuse(send, 503, "Too many requests at once; try again in a second.", {"Retry-After": "1"})
            return
        self.now += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.now -= 1


class WholeBody:
    """Reads a request's body before the application begins, as much as is allowed and in the time that is allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = b""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while len(body) <= MOST_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            await refuse(send, 408, f"The request did not arrive within {BODY_SECONDS:g} seconds.")
            return
        if len(body) > MOST_BYTES:
            await refuse(send, 413, f"The request is larger than {MOST_BYTES:,} bytes.")
            return
        read = False

        async def replayed() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replayed, send)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(host: str) -> str:
    """A Host header without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
