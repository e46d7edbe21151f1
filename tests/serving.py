"""A playground that answers on a port of its own, in a thread of the test's process."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from shortrun.serve.app import Playground
from shortrun.serve.connections import listening, server_of


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A playground that answers."""

    playground: Playground
    server: uvicorn.Server
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, None, headers)

    def post(self, path: str, question: Any, **headers: str) -> Answer:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json", **headers})

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def serving(*runs: Path) -> Iterator[Served]:
    """Serves some runs until the end of the block."""
    playground = Playground(list(runs))
    ready = threading.Event()
    with listening("127.0.0.1", 0) as place:
        server = server_of(playground.app("127.0.0.1"), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            assert ready.wait(60)
            yield Served(playground, server, place.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
            playground.close()


def until(condition: Callable[[], bool]) -> None:
    """Waits until something is so, which a broken server never makes it."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it has not come about within a minute"
        time.sleep(0.01)
