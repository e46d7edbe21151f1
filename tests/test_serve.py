"""The playground's server: its answers are the library's, its bounds hold, and nothing that is typed stays anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.errors import UserError
from shortrun.runs.folder import RunFolder
from shortrun.runs.trained import load_step, load_trained
from shortrun.serve import answers, bounds, connections, models
from shortrun.serve.app import MOST_STREAMS, Playground
from shortrun.serve.connections import listening
from shortrun.view.alignment import aligned
from shortrun.view.evaluate import evaluate_run
from shortrun.view.reading import read
from tests.conftest import run_command
from tests.hostile import damaged, plant, tried
from tests.serving import Served, serving, until

GO_ON = threading.Event()
TEXT = "Show HN: a λ model <eos> 🚀"


@pytest.fixture(scope="module")
def paths(whole: Callable[[str], Path]) -> tuple[Path, Path]:
    return whole("stream"), whole("shuffled")


@pytest.fixture(scope="module")
def served(paths: tuple[Path, Path]) -> Iterator[Served]:
    with serving(*paths) as found:
        yield found


@pytest.fixture
def blocked(served: Served) -> Iterator[Served]:
    """The same, while the one thread that computes is held, until `release`."""
    GO_ON.clear()
    work = served.playground.torch._thread.submit(GO_ON.wait)
    yield served
    release()
    work.result()


def release() -> None:
    GO_ON.set()


def one(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "readers": [{"run": 0, **more}]}


def test_a_reading_is_the_librarys(served: Served, paths: tuple[Path, Path]) -> None:
    readings = [read(load_trained(path), TEXT) for path in paths]
    told = served.post("/api/read", {"text": TEXT, "readers": [{"run": 0}, {"run": 1}]}).told
    for found, reading in zip(told["readings"], readings, strict=True):
        assert found["loss"] == pytest.approx(reading.loss, rel=1e-6)
        for token, expected in zip(found["tokens"], reading.as_dict()["tokens"], strict=True):
            assert token["surprisal"] == pytest.approx(expected["surprisal"], rel=1e-5)
            assert (token["text"], token["rank"]) == (expected["text"], expected["rank"])
            assert [guess["token"] for guess in token["guesses"]] == [guess["token"] for guess in expected["guesses"]]
    assert [span["text"] for span in told["spans"]] == [span.text for span in aligned(readings)]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_and_its_guesses_can_be_taken(served: Served, text: str) -> None:
    """Tokens add up to the text. What a guess adds is text, unless it is an end or a part of a character."""
    answer = served.post("/api/read", one(text))
    assert answer.status == 200, answer.body
    (reading,) = answer.told["readings"]
    assert "".join(token["text"] for token in reading["tokens"]) == text
    tokenizer = served.playground.models.runs[0].newest.tokenizer
    ids = [token["id"] for token in reading["tokens"]]
    for at in (0, len(ids) // 2, len(ids) - 1):
        before = ids[:at]
        for guess in reading["tokens"][at]["guesses"]:
            if guess["text"] is None:
                assert (
                    guess["end"] or tokenizer.is_fallback(guess["id"]) or guess["id"] in (tokenizer.pad, tokenizer.unk)
                )
            elif not before or not tokenizer.is_fallback(before[-1]):
                assert tokenizer.decode([*before, guess["id"]]) == tokenizer.decode(before) + guess["text"]


def test_samples_are_those_of_the_command(served: Served, paths: tuple[Path, Path]) -> None:
    flags = ["--prefix", "Show", "--n", "7", "--seed", "5", "--temperature", "0.9", "--top-k", "40", "--top-p", "0.95"]
    done = run_command("sample", paths[1], *flags, "--json")
    question = {"run": 1, "prefix": "Show", "count": 7, "seed": 5, "temperature": 0.9, "top_k": 40, "top_p": 0.95}
    lines = [json.loads(line) for line in served.post("/api/sample", question).body.splitlines()]
    assert lines.pop() == {"done": True}
    assert {line["number"]: line["text"] for line in lines} == dict(enumerate(json.loads(done.stdout)["documents"]))


def test_top_k_and_top_p_are_checked(paths: tuple[Path, Path]) -> None:
    for flag, value, told in (("--top-k", "0", "must be at least 1"), ("--top-p", "0", "must be above 0")):
        done = run_command("sample", paths[0], flag, value)
        assert done.returncode == 2
        assert told in done.stderr
    greedy = run_command("sample", paths[0], "--temperature", "0", "--json")
    assert run_command("sample", paths[0], "--top-k", "1", "--json").stdout == greedy.stdout


def test_another_checkpoint_reads_too(
    served: Served, paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "KEPT", 1)
    told = served.get("/api/runs").told["runs"]
    assert [run["step"] for run in told] == [run["steps"][-1] for run in told]
    for number, path in enumerate(paths):
        step = told[number]["steps"][0]
        assert step < told[number]["step"]
        (found,) = served.post("/api/read", {"text": TEXT, "readers": [{"run": number, "step": step}]}).told["readings"]
        assert found["step"] == step
        assert found["nats"] == pytest.approx(read(load_step(path, step), TEXT).nats, rel=1e-5)
    assert len(served.playground.models._others) == 1
    gone = served.post("/api/read", one("a", step=1_000_000))
    assert gone.status == 400
    assert "has no checkpoint of step 1000000; those it has kept: " in gone.told["error"]


def test_documents_come_from_the_hardest_to_the_easiest(served: Served, paths: tuple[Path, Path]) -> None:
    hardest, easiest = evaluate_run(paths[0]).extremes(5)
    for order, expected in (("hardest", hardest), ("easiest", easiest)):
        told = served.post("/api/documents", {"order": order, "count": 5}).told
        assert [each["loss"] for each in told["documents"]] == pytest.approx([each["loss"] for each in expected])
    pages = [served.post("/api/documents", {"offset": at, "count": 15}).told for at in (0, 15, 30)]
    numbers = [each["number"] for page in pages for each in page["documents"]]
    assert sorted(numbers) == list(range(pages[0]["total"]))
    assert len(pages[2]["documents"]) == pages[0]["total"] - 30
    texts = list(RunFolder.open(paths[0]).corpus().split("validation"))
    found = served.post("/api/documents", {"word": "hn", "count": 100}).told
    assert {each["number"] for each in found["documents"]} == {
        n for n, text in enumerate(texts) if "hn" in text.lower()
    }
    assert 0 < found["matching"] == len(found["documents"]) < found["total"]
    assert served.post("/api/documents", {"word": ".*"}).told["matching"] == 0


def test_a_run_without_scores_is_served(paths: tuple[Path, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(paths[1], tmp_path / "training"))
    (run / "scores.json").unlink()
    (run / "nats.npz").unlink()
    with serving(run) as found:
        (told,) = found.get("/api/runs").told["runs"]
        assert (told["complete"], told["loss"]) == (False, None)
        documents = found.post("/api/documents", {"count": 3}).told
        assert [each["number"] for each in documents["documents"]] == [0, 1, 2]
        assert "no scores yet" in documents["note"]
        assert found.get("/api/sections").told["sections"][1]["title"] == "Results"


def test_sections_are_the_reports(served: Served) -> None:
    sections = served.get("/api/sections").told["sections"]
    assert [section["title"] for section in sections] == ["Curves", "Results", "stream and shuffled"]
    charts = [block["chart"] for block in sections[0]["blocks"] if block["kind"] == "figure"]
    assert len(charts) == 2
    assert sections[1]["blocks"][0]["right"][0] is False
    assert "vegaEmbed" in served.get("/vega.js").body.decode()


@pytest.mark.parametrize(
    ("path", "question", "status", "told"),
    [
        ("/api/read", one("x" * 2001), 400, "text: String should have at most 2000 characters"),
        ("/api/read", {"text": "a", "readers": []}, 400, "readers: List should have at least 1 item"),
        ("/api/read", {"text": "a", "readers": [{"run": 0}] * 3}, 400, "at most 2 items"),
        ("/api/read", {"text": "a", "readers": [{"run": -1}]}, 400, "readers.0.run"),
        ("/api/read", {"text": "a", "readers": [{"run": 0}], "secret": 1}, 400, "secret: Extra inputs"),
        ("/api/read", b'{"text": "\\ud83d", "readers": [{"run": 0}]}', 400, "Invalid JSON"),
        ("/api/read", b"\xff", 400, "Invalid JSON"),
        ("/api/read", b"x" * 40_000, 413, "larger than 32,768 bytes"),
        ("/api/sample", {"count": 101}, 400, "count"),
        ("/api/sample", {"temperature": -1}, 400, "temperature"),
        ("/api/sample", {"top_p": 0}, 400, "top_p"),
        ("/api/sample", {"top_k": 0}, 400, "top_k"),
        ("/api/sample", {"seed": 2**53}, 400, "seed"),
        ("/api/sample", {"prefix": "x" * 501}, 400, "prefix"),
        ("/api/documents", {"word": "x" * 101}, 400, "word"),
        ("/api/documents", {"order": "worst"}, 400, "order"),
        ("/api/nowhere", {}, 404, "Not Found"),
        ("/api/runs", {}, 405, "Method Not Allowed"),
    ],
)  # fmt: skip
def test_past_a_bound_the_answer_is_a_sentence(
    served: Served, path: str, question: Any, status: int, told: str
) -> None:
    answer = served.post(path, question)
    assert (answer.status, told in answer.told["error"]) == (status, True), answer.body
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")


QUESTIONS: dict[str, Any] = {
    "/api/read": {"text": TEXT, "readers": [{"run": 0, "step": None}], "top": 3},
    "/api/sample": {"run": 0, "prefix": "Show", "count": 1, "temperature": 1.0, "top_k": 3, "top_p": 0.9, "seed": 1},
    "/api/documents": {"run": 0, "word": "hn", "order": "hardest", "offset": 0, "count": 3},
}


@pytest.mark.parametrize("path", QUESTIONS)
def test_any_question_is_answered_or_refused_with_a_sentence(served: Served, path: str) -> None:
    @tried(40)
    @given(st.data())
    def held(data: st.DataObject) -> None:
        whole_body = json.dumps(QUESTIONS[path]).encode()
        if data.draw(st.booleans()):
            tree = json.loads(whole_body)
            plant(data, tree)
            body = json.dumps(tree).encode()
        else:
            body = data.draw(damaged(whole_body) | st.sampled_from([b"[" * 30_000, b"9" * 30_000, b""]))
        answer = served.post(path, body)
        assert answer.status in (200, 400, 413), answer.body
        assert answer.status == 200 or answer.told["error"]

    held()


def test_the_page_and_its_files_are_all_that_is_served(served: Served) -> None:
    page = served.get("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert served.get("/static/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/", "/docs"):
        assert served.get(path).status == 404, path


def test_a_question_has_to_be_json(served: Served) -> None:
    """A form of another site can send a body of text without being asked first; one of JSON it can't."""
    assert served.post("/api/read", one("a"), Content_Type="text/plain").status == 415


def test_a_run_that_is_not_there(whole: Callable[[str], Path]) -> None:
    with serving(whole("stream")) as found:
        for path, question in (
            ("/api/read", {"text": "a", "readers": [{"run": 1}]}),
            ("/api/sample", {"run": 1}),
            ("/api/documents", {"run": 1}),
        ):
            answer = found.post(path, question)
            assert answer.status == 400
            assert answer.told["error"] == "There is no run 1: this server was given 1 run"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "192.168.1.2", "", "[::2]"])  # fmt: skip
def test_a_foreign_host_is_refused(served: Served, host: str) -> None:
    answer = served.get("/api/runs", Host=host)
    assert answer.status == 421
    assert "Host" in answer.told["error"]


def test_its_own_hosts_are_known(served: Served) -> None:
    for host in ("127.0.0.1", f"127.0.0.1:{served.port}", "localhost:1", "LOCALHOST", "[::1]:80"):
        assert served.get("/api/runs", Host=host).status == 200, host


def test_a_foreign_origin_is_refused(served: Served) -> None:
    own = {"Host": f"127.0.0.1:{served.port}"}
    assert served.post("/api/read", one("a"), **own, Origin=f"http://127.0.0.1:{served.port}").status == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{served.port}"):
        assert served.post("/api/read", one("a"), **own, Origin=origin).status == 403, origin
    assert served.get("/api/runs", Sec_Fetch_Site="cross-site").status == 403
    assert served.get("/", Sec_Fetch_Site="cross-site").status == 200, "a link from elsewhere may open the page"


def test_addresses_are_known_where_others_may_come() -> None:
    """By name, only the one that the server was given: another may be anybody's."""
    wide = bounds.KnownHost(lambda *_: None, "0.0.0.0")  # type: ignore[arg-type]
    assert wide.knows("192.168.1.2:8765")
    assert wide.knows("[fe80::1]:8765")
    assert not wide.knows("evil.example")
    named = bounds.KnownHost(lambda *_: None, "box.local")  # type: ignore[arg-type]
    assert named.knows("Box.local:8765")


def test_past_the_queue_the_answer_is_to_come_again(blocked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = blocked.playground.torch
    monkeypatch.setattr(torch, "most", 2)
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(blocked.post, "/api/read", one(str(n))) for n in range(2)]
        until(lambda: torch.waiting == 2)
        answer = blocked.post("/api/read", one("a"))
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.told["error"] == "Too much is being computed at once; try again in a second."
        assert blocked.get("/").status == 200
        release()
        assert [each.result().status for each in waiting] == [200, 200]


def test_too_many_requests_at_once_are_refused(blocked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_AT_ONCE", 1)
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(blocked.post, "/api/read", one("a"))
        until(lambda: blocked.playground.torch.waiting == 1)
        answer = blocked.get("/api/runs")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        release()
        assert waiting.result().status == 200


def sent(served: Served, data: bytes) -> socket.socket:
    """A connection on which some bytes have been sent."""
    client = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    client.sendall(data)
    return client


def raw(path: str, body: bytes, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def test_a_client_that_vanishes_leaves_the_queue(blocked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    read_texts = []
    monkeypatch.setattr(answers, "read", lambda _, text, __: read_texts.append(text))
    torch = blocked.playground.torch
    with sent(blocked, raw("/api/read", json.dumps(one("vanished")).encode())):
        until(lambda: torch.waiting == 1)
    until(lambda: torch.waiting == 0)
    release()
    torch._thread.submit(int).result()
    assert read_texts == []


def test_a_client_that_vanishes_ends_its_sampling(served: Served) -> None:
    question = {"count": 100, "temperature": 1.0}
    with sent(served, raw("/api/sample", json.dumps(question).encode())) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    until(lambda: served.playground._sampling._value == MOST_STREAMS)
    until(lambda: served.playground.torch.waiting == 0)


def test_a_client_that_sends_slowly_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    for data in (b"", b"GET / HTTP/1.1\r\nHost: local"):
        with sent(served, data) as client, suppress(ConnectionResetError):
            assert client.recv(100) == b""
    monkeypatch.setattr(bounds, "BODY_SECONDS", 0.2)
    with sent(served, raw("/api/read", b"{", 100)) as client:
        assert b"408 Request Timeout" in client.recv(100)


def test_a_client_that_reads_nothing_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is larger than what lies between the two."""
    served.get("/vega.js")
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.5)
    until(lambda: not served.server.server_state.connections)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with client:
        client.connect(("127.0.0.1", served.port))
        client.sendall(b"GET /vega.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 8)
        until(lambda: bool(served.server.server_state.connections))
        until(lambda: not served.server.server_state.connections)


def test_nothing_is_lost_under_load(served: Served) -> None:
    """200 requests of 20 clients at once: every answer is there, and is that of its own question."""
    texts = [f"Show HN {number} is fast" for number in range(200)]

    def ask(number: int) -> Any:
        if number % 10 == 9:
            lines = served.post("/api/sample", {"count": 2, "seed": number}).body.splitlines()
            return json.loads(lines[-1])
        return served.post("/api/read", one(texts[number])).told["readings"][0]

    playground = served.playground
    assert playground.torch.most >= 20
    with ThreadPoolExecutor(20) as clients:
        found = list(clients.map(ask, range(200)))
    for number, answer in enumerate(found):
        if number % 10 == 9:
            assert answer == {"done": True}
        else:
            assert "".join(token["text"] for token in answer["tokens"]) == texts[number]
    assert playground.torch.waiting == 0


def test_what_nobody_foresaw_repeats_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(_: Any, text: str, __: int) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(answers, "read", fails)
    answer = served.post("/api/read", one("a secret"))
    assert (answer.status, answer.told["error"]) == (500, bounds.UNFORESEEN)
    output = ""

    def told() -> bool:
        nonlocal output
        output += "".join(capfd.readouterr())
        return output.endswith("\n")

    until(told)  # the terminal is told after the visitor
    assert output.startswith("shortrun: RuntimeError in test_serve.py:")
    assert "secret" not in output


def test_mistakes_are_sentences(paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_command("serve", paths[0], "--port", str(taken.getsockname()[1]))
        assert done.returncode == 2
        assert "can't be listened at: Address already in use; --port 0 takes a free port" in done.stderr
    for args, told in (
        ([paths[0], "--port", "70000"], "--port 70000 must be"),
        ([*paths, paths[0], "--port", "0"], "3 runs are given; the playground shows one, or two side by side"),
        (["--port", "0"], "0 runs are given"),
        ([paths[0], paths[0], "--port", "0"], "is given twice"),
        ([tmp_path, "--port", "0"], "is not a run"),
    ):
        done = run_command("serve", *args)
        assert done.returncode == 2
        assert told in done.stderr
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'shortrun[playground]'" in run_command("serve", paths[0]).stderr


def test_a_playground_that_can_not_begin_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(UserError, match="is not a run"):
        Playground([tmp_path])
    assert threading.active_count() <= before  # one of a test before may have ended in between
    with pytest.raises(UserError, match="nowhere"):
        listening("nowhere.invalid", 0)


@pytest.mark.slow
def test_the_command_serves_and_keeps_nothing(paths: tuple[Path, Path], tmp_path: Path) -> None:
    """At an address that others can reach, which it warns of; what is typed is in no file and no output afterwards."""
    run = Path(shutil.copytree(paths[0], tmp_path / "run"))
    command = [sys.executable, "-m", "shortrun", "serve", str(run), "--host", "0.0.0.0", "--port", "0", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        found = Served(None, None, told["port"])  # type: ignore[arg-type]
        secret = "q8 secret zz"
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert found.post("/api/read", one(secret)).status == 200
        assert secret.encode() in found.post("/api/sample", {"prefix": secret, "count": 2}).body
        assert found.post("/api/documents", {"word": secret}).status == 200
        assert found.get(f"/{secret.replace(' ', '')}").status == 404
        assert found.get("/api/runs", Host="10.1.2.3").status == 200
        assert found.get("/api/runs", Host="evil.example").status == 421
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Warning: whoever can reach 0.0.0.0 can use this page" in err
    assert told["runs"][0]["name"] == "run"
    assert "secret" not in out + err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
