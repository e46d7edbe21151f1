"""How fast and how large shortrun's training is, beside others, on this machine: one table and a JSON file.

    python benchmarks/run.py                    everything below; at most 30 minutes on 2 cores
    python benchmarks/run.py --only plain       the parts whose name contains "plain"
    python benchmarks/run.py --list             their names

Each part lets its contestants take turns, a step each, so that whatever the machine does besides hits all of them; the
first steps are thrown away. A ratio is the peer's median seconds over ours, with its range over the turns. Nothing else
should run meanwhile. bfloat16 is left out where its matrix products are not faster (a probe says so first). Peers that are not installed (transformers, litgpt) are installed from PyPI into benchmarks/.peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
WARM_UP = 2


@dataclass
class Contestant:
    """What `contestants.py` is called with."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def start(self) -> subprocess.Popen[str]:
        flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in self.options.items()]
        python = str(peers_python()) if self.name in ("transformers", "litgpt") else sys.executable
        return subprocess.Popen(
            [python, str(HERE / "contestants.py"), self.name, *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


@dataclass
class Result:
    """A contestant's turns."""

    label: str
    facts: dict[str, Any]
    seconds: list[float]
    losses: list[float]
    targets: list[int]
    peak_bytes: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def peers_python() -> Path:
    """A Python that has the peers besides all that this one has; made on first use."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        print("installing transformers and litgpt into benchmarks/.peers ...", file=sys.stderr)
        venv.create(PEERS, with_pip=True)
        site = next((PEERS / "lib").glob("python*/site-packages"))
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (site / "ours.pth").write_text("\n".join(ours))
        install = [str(python), "-m", "pip", "install", "-q", "-c", str(HERE.parent / "constraints.txt")]
        needed = ["transformers", "lightning>=2.6.1", "jsonargparse[signatures]>=4.37,<=4.41", "psutil"]
        subprocess.run([*install, *needed], check=True)
        # on its own: it asks for an older huggingface_hub than transformers, which its model does not use
        subprocess.run([*install, "--no-deps", "litgpt"], check=True)
    return python


def take_turns(contestants: list[Contestant], turns: int) -> list[Result]:
    """Lets each take WARM_UP steps and then `turns` measured ones, one contestant at a time."""
    processes = [contestant.start() for contestant in contestants]
    try:
        facts = [_answer(process)["ready"] for process in processes]
        seconds: list[list[float]] = [[] for _ in processes]
        losses: list[list[float]] = [[] for _ in processes]
        targets: list[list[int]] = [[] for _ in processes]
        for turn in range(WARM_UP + turns):
            for index, process in enumerate(processes):
                time.sleep(0.3)  # threads of the one before may still spin
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
                answer = _answer(process)
                if turn >= WARM_UP:
                    losses[index].append(answer["loss"])
                    seconds[index].append(answer["seconds"])
                    targets[index].append(answer["targets"])
        peaks = []
        for process in processes:
            assert process.stdin
            process.stdin.close()
            peaks.append(_answer(process)["peak_bytes"])
    finally:
        for process in processes:
            process.kill()
    labels = [contestant.label or contestant.name for contestant in contestants]
    return [Result(*row) for row in zip(labels, facts, seconds, losses, targets, peaks, strict=True)]


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a contestant stopped: {process.args!r}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def against(what: str, ours: Result, peer: Result) -> dict[str, Any]:
    """One row: the peer's seconds over ours, by medians, and by the turns that were best and worst for us."""
    ratios = [theirs / mine for mine, theirs in zip(ours.seconds, peer.seconds, strict=True)]
    return {
        "what": what,
        "ours": ours.median,
        "peer": peer.median,
        "ratio": peer.median / ours.median,
        "min": min(ratios),
        "max": max(ratios),
        "unit": "s a step",
        "peak_ratio": ours.peak_bytes / peer.peak_bytes,
        "ours_peak_gb": ours.peak_bytes / 1e9,
        "peer_peak_gb": peer.peak_bytes / 1e9,
    }


def share_of_the_product(what: str, ours: Result, product: Result) -> dict[str, Any]:
    """One row: the step's FLOP per second, by 6 x parameters x tokens, over the rate of the plain matrix product."""
    flop = 6 * ours.facts["parameters"] * 64 * 128
    rates = [flop / seconds / 1e9 for seconds in ours.seconds]
    peaks = product.losses
    shares = [rate / peak for rate, peak in zip(rates, peaks, strict=True)]
    return {
        "what": what,
        "ours": statistics.median(rates),
        "peer": statistics.median(peaks),
        "ratio": statistics.median(rates) / statistics.median(peaks),
        "min": min(shares),
        "max": max(shares),
        "unit": "GFLOP/s",
    }


@cache
def precisions(device: str) -> tuple[str, ...]:
    """Those worth measuring here: bfloat16 where it pays, and float32."""
    from shortrun.model.device import choose_precision

    dtype, why = choose_precision("auto", torch.device(device))
    print(why, file=sys.stderr)
    return ("bfloat16", "float32") if dtype is torch.bfloat16 else ("float32",)


SHAPES: dict[str, dict[str, Any]] = {
    "6 x 256": {"n-layer": 6, "n-head": 4, "d-model": 256, "batch-size": 32, "vocab-size": 8000, "modern": True},
    "8 x 320": {"n-layer": 8, "n-head": 5, "d-model": 320, "batch-size": 32, "vocab-size": 8000, "modern": True},
}
"""Those that people train on two cores: 4,096 tokens a step."""


def of_floor(turns: int, device: str) -> list[dict[str, Any]]:
    """Muon's step on rows of documents against its own matrix products alone: the share of it that no eager code saves."""
    rows = []
    for shape, precision in product(SHAPES, precisions(device)):
        options = {**SHAPES[shape], "precision": precision, "optimizer": "muon", "mode": "documents", "device": device}
        ours, floor = take_turns([Contestant("ours", options), Contestant("floor", options)], 3 * turns)
        rows.append(against(f"{shape}: step in {precision} / its products alone", ours, floor))
    return rows


def of_documents(turns: int, device: str) -> list[dict[str, Any]]:
    """Real tokens a second in rows of documents against shuffled rows."""
    rows = []
    baseline: dict[str, Any] = {"optimizer": "adamw"}
    for (shape, options), precision in product(
        {"6 x 256": {**SHAPES["6 x 256"], "optimizer": "muon"}, "baseline": baseline}.items(), precisions(device)
    ):
        documents, shuffled = take_turns(
            [
                Contestant("ours", {**options, "precision": precision, "mode": mode, "device": device})
                for mode in ("documents", "shuffled")
            ],
            turns if shape == "baseline" else 3 * turns,
        )
        rates, theirs = (
            [count / seconds for count, seconds in zip(each.targets, each.seconds, strict=True)]
            for each in (documents, shuffled)
        )
        ratios = [one / other for one, other in zip(rates, theirs, strict=True)]
        rows.append(
            {
                "what": f"{shape}: documents in {precision} / shuffled",
                "ours": statistics.median(rates),
                "peer": statistics.median(theirs),
                "ratio": statistics.median(rates) / statistics.median(theirs),
                "min": min(ratios),
                "max": max(ratios),
                "unit": "tokens/s",
            }
        )
    return rows


def of_plain(turns: int, device: str) -> list[dict[str, Any]]:
    """The baseline's shape against a plain implementation in the same precision, and against the machine's matrix products."""
    rows = []
    for precision in precisions(device):
        options = {"precision": precision, "device": device}
        names = ("ours", "plain", "product")
        ours, plain, rate = take_turns([Contestant(name, options) for name in names], turns)
        rows.append(against(f"step in {precision} / plain", ours, plain))
        rows.append(share_of_the_product(f"share of the {precision} product's rate", ours, rate))
    return rows


MINI = {
    "n-layer": 2, "n-head": 4, "d-model": 128, "block-size": 64, "batch-size": 32, "vocab-size": 50_257, "dropout": 0.0,
}  # fmt: skip
"""The shape of the recipe `mini-gpt`."""


def of_mini_gpt(turns: int, device: str) -> list[dict[str, Any]]:
    """Steps of the recipe `mini-gpt` against a plain implementation's, whose logits of a step are 412 MB in float32."""
    rows = []
    for precision in precisions(device):
        options = {**MINI, "precision": precision, "device": device}
        ours, plain = take_turns([Contestant("ours", options), Contestant("plain", options)], 3 * turns)
        rows.append(against(f"mini-gpt: step in {precision} / plain", ours, plain))
    return rows


def of_peers(turns: int, device: str) -> list[dict[str, Any]]:
    """The baseline's shape against transformers (with dropout) and litgpt (which has none), same precision both sides."""
    rows = []
    for (peer, dropout), precision in product((("transformers", 0.1), ("litgpt", 0.0)), precisions(device)):
        options = {"precision": precision, "dropout": dropout, "device": device}
        ours, other = take_turns([Contestant("ours", options), Contestant(peer, options)], turns)
        rows.append(against(f"step in {precision} / {peer}'s {other.facts['version']}", ours, other))
    return rows


def of_muon(turns: int, device: str) -> list[dict[str, Any]]:
    """What Muon costs on rows of documents: AdamW's step over Muon's (0.89 means 1.12 times)."""
    rows = []
    for precision in precisions(device):
        options = {**SHAPES["6 x 256"], "precision": precision, "mode": "documents", "device": device}
        muon, adamw = take_turns(
            [Contestant("ours", {**options, "optimizer": name}) for name in ("muon", "adamw")], 3 * turns
        )
        rows.append(against(f"6 x 256: Muon's step in {precision} / AdamW's", muon, adamw))
    return rows


def of_rdrop(turns: int, device: str) -> list[dict[str, Any]]:
    """What R-Drop's second pass costs: a plain step over one with R-Drop (0.5 is what two passes cost)."""
    options = {"precision": precisions(device)[0], "device": device}
    rdrop, usual = take_turns([Contestant("ours", {**options, "rdrop": 2.0}), Contestant("ours", options)], turns)
    return [against(f"R-Drop's step in {options['precision']} / one without", rdrop, usual)]


def of_inside(turns: int, device: str) -> list[dict[str, Any]]:  # noqa: ARG001
    """Evaluation, sampling, packing and the loss over logits, each against what it must cost at least (on the CPU)."""
    rows = []
    for part in ("evaluation", "sampling", "packing", "loss"):
        done = subprocess.run([sys.executable, str(HERE / "inside.py"), part], stdout=subprocess.PIPE, check=True)
        rows += json.loads(done.stdout)
    return rows


def of_tracking(turns: int, device: str) -> list[dict[str, Any]]:
    """What TensorBoard writes about a step, beside the step in the faster precision; sampling at an evaluation apart."""
    options = [f"--precision={precisions(device)[0]}", f"--turns={turns}", f"--device={device}"]
    command = [sys.executable, str(HERE / "tracking.py"), *options]
    rows: list[dict[str, Any]] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return rows


def of_compile(turns: int, device: str) -> list[dict[str, Any]]:
    """torch.compile: the step without it over the step with it, after the first steps."""
    options = {"precision": precisions(device)[0], "device": device}
    compiled, eager = take_turns([Contestant("ours", {**options, "compile": True}), Contestant("ours", options)], turns)
    return [against(f"step in {options['precision']} with torch.compile / without", compiled, eager)]


def of_growth(turns: int, device: str) -> list[dict[str, Any]]:
    """Tokens a second and memory against width and vocabulary, in the faster precision; the estimate of memory beside the peak."""
    from shortrun.recipe import Recipe
    from shortrun.train.memory import step_bytes

    rows = []
    precision = precisions(device)[0]
    shapes = [(width, 16_000) for width in (128, 256, 512, 1024)]
    shapes += [(512, vocabulary) for vocabulary in (4_000, 8_000, 32_000, 64_000)]
    for width, vocabulary in shapes:
        options = {"precision": precision, "d-model": width, "n-head": width // 64, "vocab-size": vocabulary}
        (ours,) = take_turns([Contestant("ours", {**options, "device": device})], turns)
        rates = [64 * 128 / seconds for seconds in ours.seconds]
        recipe = Recipe.model_validate(
            {
                "model": {"d_model": width, "n_head": width // 64},
                "train": {"precision": precision},
                "tokenizer": {"vocab_size": vocabulary},
            }
        )
        parameters = int(ours.facts["parameters"])
        rows_at_once = int(ours.facts["rows"])
        estimate = sum(step_bytes(parameters, vocabulary, recipe, getattr(torch, precision), rows_at_once).values())
        rows.append(
            {
                "what": f"width {width}, vocabulary {vocabulary:,}, {precision}: {parameters:,} parameters",
                "width": width,
                "vocabulary": vocabulary,
                "ours": statistics.median(rates),
                "min": min(rates),
                "max": max(rates),
                "unit": "tokens/s",
                "ours_peak_gb": ours.peak_bytes / 1e9,
                "estimated_gb": estimate / 1e9,
            }
        )
    return rows


def of_corpus(turns: int, device: str) -> list[dict[str, Any]]:  # noqa: ARG001
    """Memory during the steps against the number of titles, on the CPU: what the batches keep, tokens being on disk."""
    rows = []
    for titles in (10_000, 100_000, 500_000, 5_000_000):
        command = [sys.executable, str(HERE / "corpus_growth.py"), f"--titles={titles}"]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        rows.append(
            {
                "what": f"corpus of {titles:,} titles, without a model",
                "titles": titles,
                "seconds_to_encode": found["seconds_to_encode"],
                "batch_ms": found["batch_ms"],
                "ours": found["most_in_steps_mb"],
                "unit": "MB",
            }
        )
    return rows


PARTS = {
    "floor": of_floor,
    "documents": of_documents,
    "plain": of_plain,
    "mini-gpt": of_mini_gpt,
    "peers": of_peers,
    "muon": of_muon,
    "rdrop": of_rdrop,
    "inside": of_inside,
    "tracking": of_tracking,
    "compile": of_compile,
    "growth": of_growth,
    "corpus": of_corpus,
}


HEADINGS = ("what", "ours", "peer", "unit", "ratio (min to max)", "peak memory, or more")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text."""
    memory = ""
    if "peak_ratio" in row:
        memory = f"{row['ours_peak_gb']:.2f} / {row['peer_peak_gb']:.2f} GB = {row['peak_ratio']:.0%}"
    elif "estimated_gb" in row:
        memory = f"{row['ours_peak_gb']:.2f} GB, estimated {row['estimated_gb']:.2f}"
    elif "batch_ms" in row:
        memory = f"a batch {row['batch_ms']:.2f} ms, to encode {row['seconds_to_encode']:.1f} s"
    elif "share" in row:
        memory = f"{row['share']:.3%} of a step, at most {row['most']:.3%}"
    spread = f"{row['ratio']:.2f} ({row['min']:.2f} to {row['max']:.2f})" if "ratio" in row else ""
    peer = f"{row['peer']:.4g}" if "peer" in row else ""
    return row["what"], f"{row['ours']:.4g}", peer, row["unit"], spread, memory


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as docs/performance.md quotes it."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--turns", type=int, default=5, help="measured steps of each contestant")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=HERE / "results.json", help="where the JSON goes")
    parser.add_argument("--list", action="store_true", help="print the parts")
    parser.add_argument("--markdown", action="store_true", help="run nothing: print the JSON file as a Markdown table")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(json.loads(options.out.read_text())["rows"]))
        return
    if options.list:
        print("\n".join(f"{name}: {part.__doc__}" for name, part in PARTS.items()))
        return
    rows = []
    chosen = {name: part for name, part in PARTS.items() if options.only in name}
    if not chosen:
        raise SystemExit(f"no part's name contains {options.only!r}; there are {', '.join(PARTS)}")
    when, here = datetime.now(UTC).isoformat(timespec="seconds"), machine(options.device)
    for name, part in chosen.items():
        rows += [
            {**row, "part": name, "device": options.device, "when": when} for row in part(options.turns, options.device)
        ]
        print(f"{name}: done", file=sys.stderr)
    table = Table(title="shortrun beside others", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    machines = {options.device: here}
    if options.out.exists():  # the parts not measured now stay as they were
        before = json.loads(options.out.read_text())
        rows += [row for row in before["rows"] if row["part"] not in chosen or row["device"] != options.device]
        rows.sort(key=lambda row: (row["device"], list(PARTS).index(row["part"])))
        machines = before.get("machines", {}) | machines
    options.out.write_text(json.dumps({"machines": machines, "rows": rows}, indent=1) + "\n")


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    processor = ""
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(": ")[2] if names else ""
    return {
        "platform": platform.platform(),
        "processor": processor,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
