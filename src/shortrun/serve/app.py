"""The application: a page, and JSON for what it asks.

GET  /api/runs        the runs, their checkpoints, and the limits
POST /api/read        a text as one or two checkpoints read it
POST /api/sample      new documents, a JSON object a line, as they end
POST /api/documents   validation documents, hardest first
GET  /api/sections    the report's curves and tables
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from shortrun import __version__
from shortrun.errors import ShortrunError, UserError, counted
from shortrun.report.html import bundle
from shortrun.report.subjects import NamedRun
from shortrun.serve.answers import Sampling, reading_answer, run_sections
from shortrun.serve.bounds import UNFORESEEN, bounded
from shortrun.serve.documents import ScoredDocuments
from shortrun.serve.models import Models
from shortrun.serve.questions import LIMITS, Asked, DocumentsQuestion, ReadQuestion, SampleQuestion, parsed
from shortrun.serve.worker import Busy, Worker

STATIC = Path(__file__).with_name("static")
ANSWER_SECONDS = 30.0
"""In which a question is answered, or not at all."""
SAMPLE_SECONDS = 120.0
MOST_STREAMS = 4
"""Samplings under way, because a reading waits for a slice of each. More wait for one of them to end."""
AGAIN = {"Retry-After": "1"}
BUSY = "Too much is being computed at once; try again in a second."
mimetypes.add_type(
    "text/javascript", ".js"
)  # some Windows machines know it as text, which no browser takes for a module
Result = TypeVar("Result")


class Playground:
    """Answers questions about some runs. Close it when it is done with."""

    def __init__(self, paths: list[Path]) -> None:
        self.torch = Worker("torch")
        self.files = Worker("files")
        """What reads folders and draws charts, so that no reading waits for it."""
        try:
            self.models = self.torch.now(lambda: Models.load(paths))
        except BaseException:
            self.close()
            raise
        self._documents: dict[int, ScoredDocuments] = {}
        self._sampling = asyncio.Semaphore(MOST_STREAMS)

    def close(self) -> None:
        self.torch.close()
        self.files.close()

    def app(self, host: str) -> ASGIApp:
        """The application behind its bounds."""
        routes = [
            Route("/", self.page),
            Route("/vega.js", self.vega),
            Route("/api/runs", self.runs),
            Route("/api/sections", self.sections),
            Route("/api/read", self.read, methods=["POST"]),
            Route("/api/sample", self.sample, methods=["POST"]),
            Route("/api/documents", self.documents, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers: dict[Any, Any] = {
            ShortrunError: _mistake,
            HTTPException: _http,
            Busy: _busy,
            TimeoutError: _late,
            ClientDisconnect: _vanished,
            Exception: _unforeseen,
        }
        return bounded(Starlette(routes=routes, exception_handlers=handlers), host)

    async def page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def vega(self, request: Request) -> Response:
        script = await answered(request, self.files.do(bundle))
        return Response(script, media_type="text/javascript")

    async def runs(self, request: Request) -> Response:
        found = await answered(request, self.files.do(lambda: [run.as_dict() for run in self.models.runs]))
        return JSONResponse({"version": __version__, "limits": LIMITS, "runs": found})

    async def sections(self, request: Request) -> Response:
        runs = [NamedRun(run.name, run.folder) for run in self.models.runs]
        return JSONResponse({"sections": await answered(request, self.files.do(lambda: run_sections(runs)))})

    async def read(self, request: Request) -> Response:
        question = await _question(ReadQuestion, request)
        for reader in question.readers:
            self._known(reader.run)
        return JSONResponse(await answered(request, self.torch.do(partial(reading_answer, self.models, question))))

    async def documents(self, request: Request) -> Response:
        question = await _question(DocumentsQuestion, request)
        self._known(question.run)

        def page() -> dict[str, Any]:
            if question.run not in self._documents:
                self._documents[question.run] = ScoredDocuments.of(self.models.runs[question.run].folder)
            return self._documents[question.run].page(**question.model_dump(exclude={"run"}))

        return JSONResponse(await answered(request, self.files.do(page)))

    async def sample(self, request: Request) -> Response:
        question = await _question(SampleQuestion, request)
        self._known(question.run)
        sampling = Sampling(self.models, question)
        await answered(request, self._sampling.acquire())
        try:
            first = await answered(request, self.torch.do(sampling.go_on))
        except BaseException:
            self._sampling.release()
            raise
        return _Stream(self._lines(sampling, *first), self._sampling.release)

    async def _lines(self, sampling: Sampling, ended: list[dict[str, Any]], more: bool) -> AsyncIterator[bytes]:
        """The documents as they end, and a last line that says that these were all, or why they are not."""
        last: dict[str, Any] = {"done": True}
        deadline = asyncio.get_running_loop().time() + SAMPLE_SECONDS
        try:
            while True:
                if ended:
                    yield b"".join(map(_line, ended))
                if not more:
                    break
                async with asyncio.timeout_at(deadline):
                    ended, more = await self.torch.do(sampling.go_on)
        except TimeoutError:
            last = {"error": f"Sampling takes longer than {SAMPLE_SECONDS:g} seconds; ask for fewer."}
        except Busy:
            last = {"error": BUSY}
        yield _line(last)

    def _known(self, run: int) -> None:
        if run >= len(self.models.runs):
            raise UserError(f"There is no run {run}: this server was given {counted(len(self.models.runs), 'run')}")


class _Stream(StreamingResponse):
    """Lines of JSON, and what is to be done when they have ended or their reader has gone."""

    def __init__(self, lines: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def answered(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Waits for work as long as its asker does; raises ClientDisconnect when he has gone, TimeoutError past the time."""
    doing = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({doing, gone}, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect if gone.done() else TimeoutError
    finally:
        doing.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    await request.body()
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _question(kind: type[Asked], request: Request) -> Asked:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "The question has to be application/json.")
    return parsed(kind, await request.body())


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _sentence(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


async def _mistake(_: Request, error: Exception) -> Response:
    return _sentence(str(error), 400)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _sentence(error.detail, error.status_code, error.headers)


async def _busy(_: Request, __: Exception) -> Response:
    return _sentence(BUSY, 503, AGAIN)


async def _late(_: Request, __: Exception) -> Response:
    return _sentence(f"No answer within {ANSWER_SECONDS:g} seconds; try again, or ask for less.", 503, AGAIN)


async def _vanished(_: Request, __: Exception) -> Response:
    return Response(status_code=204)  # nobody reads it


async def _unforeseen(_: Request, __: Exception) -> Response:
    return _sentence(UNFORESEEN, 500)  # and the layer around the application says where
