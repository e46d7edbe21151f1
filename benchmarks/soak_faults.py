"""The faults of the soak: each happens to a run of its own, which must then end in the bits of one that was left alone.

A fault is a function of a `Place`. It raises AssertionError where something was lost or the message does not say what happened,
and Impossible where this machine can't have it. It returns how often it struck.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from soak_database import NoServer, Server
from soak_jobs import a_sweeps_database_goes, a_worker_dies
from soak_power import Disk
from soak_sittings import Place, differences, require, require_nothing_lost

from shortrun.disk import read_json
from shortrun.recipe_file import to_toml
from shortrun.runs.checkpoints import newest_checkpoint
from shortrun.runs.folder import RunFolder

Fault = Callable[[Place], int]
ROOM = 400_000
"""Bytes of the small disk. A run takes about half of them."""
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Impossible(Exception):
    """This machine can't have the fault; the message says why."""


def killed(place: Place) -> int:
    """SIGKILL at random moments of the same run, two to six times."""
    return _struck(place, signal.SIGKILL, place.rng.randint(2, 6))


def terminated(place: Place) -> int:
    """SIGTERM at random moments of the same run, once or twice."""
    return _struck(place, signal.SIGTERM, place.rng.randint(1, 2))


def _struck(place: Place, number: signal.Signals, times: int) -> int:
    variant = place.any_variant()
    whole, seconds = place.whole(variant)
    run, acks, struck = place.new("run"), place.new("acks"), 0
    for _ in range(times):
        argv = ["resume", run] if run.exists() else ["train", place.recipe(variant), "--out", run]
        sitting = place.begin(*argv, "--json", acks=acks)
        time.sleep(place.rng.uniform(0, 1.1 * seconds))
        sitting.send(number)
        code = sitting.wait()
        require_nothing_lost(run, acks, number.name)
        require(code in (0, 128 + number, -number), f"exit code {code}: {sitting.said}")
        if code == 128 + number:
            require(f"`shortrun resume {run}`" in sitting.said, f"it does not say how to go on: {sitting.said}")
        struck += code != 0
    _require_same_end(place, run, variant, whole)
    return struck


def _require_same_end(place: Place, run: Path, variant: str, whole: Path) -> str:
    said = place.go_on(run, variant)
    found = differences(run, whole)
    require(not found, f"{run} ends in other {', '.join(found)} than {whole}")
    return said


def _stopped(place: Place, variant: str, at: int) -> Path:
    """A run that was stopped after some steps, as somebody does who means to go on."""
    run = place.new("run")
    sitting = place.begin("train", place.recipe(variant), "--out", run, "--max-steps", str(at), "--json")
    require(sitting.wait() == 0, sitting.said)
    return run


def full_disk(place: Place) -> int:
    """A small disk is full at a random moment."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    with _small_disk(place.new("disk")) as disk:
        run, acks = disk / "run", place.new("acks")
        free = place.rng.randrange(20_000, ROOM // 2)
        (disk / "ballast").write_bytes(bytes(ROOM - free))
        sitting = place.begin("train", place.recipe(variant), "--out", run, "--json", acks=acks)
        code = sitting.wait()
        require_nothing_lost(run, acks, "full disk")
        require(not code or "No space left" in sitting.said, f"it does not say that the disk is full: {sitting.said}")
        (disk / "ballast").unlink()
        _require_same_end(place, run, variant, whole)
        return int(code != 0)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    size = ROOM + 64 * 4096  # folders and the last pages of files take some
    with _mounted(folder, ["-t", "tmpfs", "-o", f"size={size}", "none", folder]):
        yield folder


@contextlib.contextmanager
def _mounted(folder: Path, *mounts: list[str | Path]) -> Iterator[None]:
    """What `mount` is called with, one after the other; taken away at the end."""
    for mount in mounts:
        done = subprocess.run(["mount", *mount], capture_output=True, check=False)
        if done.returncode:
            raise Impossible(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def read_only(place: Place) -> int:
    """The run folder can't be written: a read-only mount, because rights don't stop root, or rights for anyone else."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    run = _stopped(place, variant, place.rng.randint(2, 10))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with _unwritable(run):
        sitting = place.begin("resume", run, "--json")
        require(sitting.wait() in (1, 2), f"it was written: {sitting.said}")
        said = " ".join(sitting.said.split())
        require("could not be written" in said, said)
        reading = place.begin("eval", run, "--json")
        require(reading.wait() == 0, f"it can't be read: {reading.said}")
    require(before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}, "files have changed")
    _require_same_end(place, run, variant, whole)
    return 1


@contextlib.contextmanager
def _unwritable(run: Path) -> Iterator[None]:
    if os.geteuid():
        paths = [run, *run.rglob("*")]
        modes = {path: path.stat().st_mode for path in paths}
        for path in paths:
            path.chmod(modes[path] & ~0o222)
        try:
            yield
        finally:
            for path in paths:
                path.chmod(modes[path])
        return
    with _mounted(run, ["--bind", run, run], ["-o", "remount,bind,ro", run]):
        yield


def damaged_checkpoint(place: Place) -> int:
    """The newest checkpoint is cut off or has a flipped bit, at a random place of a random file; twenty times."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    run = _stopped(place, variant, place.rng.randint(9, 12))
    newest, _ = newest_checkpoint(RunFolder.open(run))
    assert newest is not None
    times = 20
    for time_left in reversed(range(times)):
        file = place.rng.choice(sorted(newest.path.iterdir()))
        content = file.read_bytes()
        at = place.rng.randrange(len(content))
        flipped = content[:at] + bytes([content[at] ^ 1 << place.rng.randrange(8)]) + content[at + 1 :]
        damaged = place.rng.choice([flipped, content[:at]])
        file.write_bytes(damaged)
        older, told = newest_checkpoint(RunFolder.open(run))
        noticed = older is not None and older.path < newest.path and str(newest.path) in told[0]
        require(noticed or _same_json(file, content, damaged), f"{file} was damaged at byte {at}, and nobody noticed")
        if time_left or not noticed:
            file.write_bytes(content)
    said = _require_same_end(place, run, variant, whole)
    require(not noticed or f"{newest.path} is damaged" in said, f"it does not name the damage: {said}")
    return times


def _same_json(file: Path, one: bytes, other: bytes) -> bool:
    """Whether a flipped bit changed nothing: white space, or a digit behind those that a number keeps."""
    if file.suffix != ".json":
        return False
    try:
        file.write_bytes(one)
        first = read_json(file)
        file.write_bytes(other)
        return first == read_json(file)
    except Exception:  # a file that can't be read says something else
        return False


def changed_data(place: Place) -> int:
    """One character of the data changes between stop and resume; then it is brought back."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    run = _stopped(place, variant, place.rng.randint(2, 10))
    content = place.data.read_bytes()
    at = place.rng.choice([at for at, byte in enumerate(content) if byte in b"aeiou"])
    try:
        place.data.write_bytes(content[:at] + b"y" + content[at + 1 :])
        sitting = place.begin("resume", run, "--json")
        require(sitting.wait() == 2, f"it went on with other data: {sitting.said}")
        require("The data is not what this run was trained on" in " ".join(sitting.said.split()), sitting.said)
    finally:
        place.data.write_bytes(content)
    _require_same_end(place, run, variant, whole)
    return 1


def clock_set_back(place: Place) -> int:
    """The clock is set back by days while the run trains, by libfaketime; killed, it goes on with the clock of today."""
    if not FAKETIME:
        raise Impossible("libfaketime is not installed (Debian's package faketime)")
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    run, clock = place.new("run"), place.new("clock")
    clock.write_text("+0")
    command = [sys.executable, "-m", "shortrun", "train", place.recipe(variant), "--out", run, "--json"]
    faked = {
        "LD_PRELOAD": str(FAKETIME[-1]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    with place.new("said").open("w+") as said:
        process = subprocess.Popen(
            [*map(str, command), "--track", "tensorboard"], env={**place.environment, **faked}, stdout=said, stderr=said
        )
        _wait_for_checkpoint(run, process)
        clock.write_text(f"-{place.rng.randint(1, 3000)}d")
        time.sleep(place.rng.uniform(0, 0.4))
        process.kill()
        process.wait()
        said.seek(0)
        require("Traceback" not in (text := said.read()), text)
    _require_same_end(place, run, variant, whole)
    return 1


def _wait_for_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/*/checkpoint.json")):
        require(process.poll() is None and time.monotonic() < deadline, "no checkpoint was made")
        time.sleep(0.01)


def two_at_once(place: Place) -> int:
    """Two processes begin, or go on with, the same run at the same moment: one trains it, the other says so."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    run = _stopped(place, variant, 2) if place.rng.random() < 0.5 else place.new("run")
    argv = ["resume", run] if run.exists() else ["train", place.recipe(variant), "--out", run]
    both = [place.begin(*argv, "--json") for _ in range(2)]
    codes = sorted(sitting.wait() for sitting in both)
    require(codes in ([0, 2], [0, 0]), f"exit codes {codes}: {both[0].said} {both[1].said}")
    for sitting in both:
        expected = ("is being trained by another process", "already exists and is not empty", "can't be made")
        require(sitting.code == 0 or any(part in " ".join(sitting.said.split()) for part in expected), sitting.said)
    _require_same_end(place, run, variant, whole)
    return 1


def out_of_memory(place: Place) -> int:
    """A limit of the process' memory is met in a step; smaller micro-batches give the same loss to five digits."""
    variant = "memory"
    recipe = place.folder / f"{variant}.toml"
    if not recipe.exists():
        wide = place.described(
            batches={"block_size": 256, "batch_size": 8, "mode": "stream"},
            model={"n_layer": 4, "n_head": 8, "d_model": 32, "dropout": 0.0},
            train={"epochs": 1, "evals_per_epoch": 1},
        )
        recipe.write_text(to_toml(wide), encoding="utf-8")
    whole, _ = place.whole(variant)
    run = place.new("run")
    sitting = place.begin("train", recipe, "--out", run, "--json", memory=MEMORY)
    require(sitting.wait() == 0, f"it did not go on with smaller micro-batches: {sitting.said}")
    require("Memory ran out at step 1" in sitting.said, f"memory was enough, or nothing was said: {sitting.said}")
    ends = [read_json(path / "scores.json")["loss"] for path in (run, whole)]
    require(abs(ends[0] - ends[1]) < 1e-5 * ends[1], f"the losses differ: {ends}")
    return 1


MEMORY = 130_000_000
"""Bytes that are too few for that recipe's whole batch and enough for smaller micro-batches."""


def not_a_number(place: Place) -> int:
    """A gradient becomes NaN at a random step: the run stops with the weights as they were, and goes on without it."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    run, acks, at = place.new("run"), place.new("acks"), place.rng.randint(1, 20)
    sitting = place.begin("train", place.recipe(variant), "--out", run, "--json", acks=acks, nan_at=at)
    require(sitting.wait() == 1, f"it went on: {sitting.said}")
    require(f"The run diverged at step {at}" in " ".join(sitting.said.split()), sitting.said)
    require_nothing_lost(run, acks, "NaN")
    _require_same_end(place, run, variant, whole)
    return 1


def damaged_cache(place: Place) -> int:
    """A file of the preparation cache has a flipped bit or is cut off: it is said, and made anew."""
    variant = place.any_variant()
    whole, _ = place.whole(variant)
    cache = place.new("cache")  # one that holds nothing but what this run reads
    argv = ("train", place.recipe(variant), "--out", place.new("run"), "--json")
    require(place.begin(*argv, environment={"SHORTRUN_CACHE": str(cache)}).wait() == 0, "no cache was made")
    file = place.rng.choice([path for path in sorted(cache.glob("*/*/*")) if path.stat().st_size])
    content = file.read_bytes()
    at = place.rng.randrange(len(content))
    file.write_bytes(place.rng.choice([content[:at], content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]]))
    for number in range(2):
        run = place.new("run")
        argv = ("train", place.recipe(variant), "--out", run, "--json")
        sitting = place.begin(*argv, environment={"SHORTRUN_CACHE": str(cache)})
        require(sitting.wait() == 0, sitting.said)
        require(not differences(run, whole), f"{run} ends in other bits")
        said = f"The cache's {file.parent.parent.name}" in sitting.said and "is damaged" in sitting.said
        require(said != bool(number), f"{file} was damaged at byte {at}; run {number + 1} said: {sitting.said}")
    require(file.name == "entry.json" or file.read_bytes() == content, f"{file} was not made as it was")
    return 1


def power_cut(place: Place) -> int:
    """The machine loses power: what was not synced is gone, in order and out of order; five images of each cut."""
    variant = place.any_variant()
    whole, seconds = place.whole(variant)
    top = place.new("top")
    top.mkdir()
    run, acks, syncs = top / "run", place.new("acks"), place.new("syncs")
    if place.rng.random() < 0.3:  # the cut comes while a stopped run goes on
        steps = place.rng.randint(2, 8)
        shutil.copytree(_stopped(place, variant, steps), run)
        acks.write_text(f"saved {steps}\n")
    disk = Disk(top, syncs, place.rng)
    cut_at = place.rng.randint(1, 60) if place.rng.random() < 0.7 else None
    argv = ["resume", run] if run.exists() else ["train", place.recipe(variant), "--out", run]
    sitting = place.begin(*argv, "--json", acks=acks, syncs=syncs, cut_at=cut_at)
    if cut_at is None:
        time.sleep(place.rng.uniform(0, 1.1 * seconds))
        sitting.send(signal.SIGKILL)
    require(sitting.wait() in (0, -signal.SIGKILL), sitting.said)
    disk.cut()
    for number in range(5):
        image = place.new("image")
        disk.image(image, in_order=number == 0)
        require_nothing_lost(image / "run", acks, f"power cut after sync {cut_at}")
        if number in (0, 4):
            _require_same_end(place, image / "run", variant, whole)
    return 5


def worker_dies(place: Place) -> int:
    """A study's worker process is killed at a random moment."""
    return a_worker_dies(place)


def database_lost(place: Place) -> int:
    """A sweep's PostgreSQL server drops its connections, or goes and comes back, at a random moment."""
    try:
        return a_sweeps_database_goes(place, Server)
    except NoServer as error:
        raise Impossible(str(error)) from None


FAULTS: dict[str, Fault] = {
    "kill -9": killed,
    "SIGTERM": terminated,
    "full disk": full_disk,
    "read-only run folder": read_only,
    "damaged checkpoint": damaged_checkpoint,
    "changed data": changed_data,
    "clock set back": clock_set_back,
    "two processes, one run": two_at_once,
    "out of memory": out_of_memory,
    "NaN gradient": not_a_number,
    "dying worker of a study": worker_dies,
    "lost database of a sweep": database_lost,
    "damaged preparation cache": damaged_cache,
    "power cut": power_cut,
}
"""Every kind of fault by its name."""
