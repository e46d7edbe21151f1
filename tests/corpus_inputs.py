"""Inputs for the corpus pipeline: prose that passes all rules, pages, duplicates, and damaged files."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shortrun.pipeline.corpus_file import CorpusFile

WORDS = (
    "the of and to in that have with river mountain people weather city garden winter morning letter question answer "
    "water forest building history music language teacher student village kitchen window machine picture summer"
).split()


def prose(seed: int, sentences: int = 12) -> str:
    """Sentences that differ from those of any other seed; each has a stop word or two."""
    rng = random.Random(seed)
    made = [
        f"The {' '.join(rng.choices(WORDS, k=rng.randint(7, 12)))} and {rng.choice(WORDS)} {seed}."
        for _ in range(sentences)
    ]
    return "\n".join(" ".join(made[at : at + 3]) for at in range(0, sentences, 3))


def near(text: str) -> str:
    """The text with one word changed."""
    words = text.split(" ")
    return " ".join([*words[:5], "elsewhere", *words[6:]])


def page(text: str, title: str = "A page") -> str:
    """A page of HTML around a text, with a menu and a legal notice."""
    paragraphs = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    menu = "".join(f'<li><a href="/{word}">{word}</a></li>' for word in WORDS[:8])
    return (
        f"<html><head><title>{title}</title></head><body><nav><ul>{menu}</ul></nav><article><h1>{title}</h1>"
        f"{paragraphs}</article><footer>All rights reserved. Privacy policy.</footer></body></html>"
    )


def jsonl(path: Path, texts: list[str], column: str = "text") -> Path:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts), encoding="utf-8")
    return path


def every_kind(folder: Path) -> dict[str, int]:
    """Fills a folder with a file of every kind, some of them damaged; returns how many good documents each holds."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [prose(seed) for seed in range(60)]
    jsonl(folder / "lines.jsonl", texts[:20])
    with (folder / "lines.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "broken\n{"other": 1}\n{"text": 3}\n{"text": null}\n\n')
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress((folder / "lines.jsonl").read_bytes().replace(b"The", b"A")))
    whole = gzip.compress("".join(json.dumps({"text": prose(seed)}) + "\n" for seed in range(100, 260)).encode())
    (folder / "torn.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"text": [*texts[20:35], None]}), folder / "table.parquet", row_group_size=4)
    (folder / "torn.parquet").write_bytes((folder / "table.parquet").read_bytes()[:-30])
    rows = "".join(f'{number},"{text}"\n' for number, text in enumerate(texts[35:40]))
    (folder / "table.csv").write_text(f"id,text\n{rows}6,too,many\n", encoding="utf-8")
    (folder / "notes").mkdir()
    for number, text in enumerate(texts[40:50]):
        (folder / "notes" / f"{number:02}.txt").write_text(text, encoding="utf-8")
    (folder / "notes" / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") + texts[50].encode())
    (folder / "notes" / "binary.txt").write_bytes(bytes(2_000))
    (folder / "notes" / "picture.png").write_bytes(b"\x89PNG")
    for number, text in enumerate(texts[51:56]):
        (folder / f"{number}.html").write_text(page(text), encoding="utf-8")
    (folder / "empty.html").write_text("<html><body></body></html>", encoding="utf-8")
    return {"lines.jsonl": 20, "packed.jsonl.gz": 20, "table.parquet": 15, "table.csv": 5, "notes": 11, "html": 5}


def corpus_file(root: Path, *inputs: dict[str, Any], **sections: Any) -> CorpusFile:
    """A corpus file of small units, so that a little input makes many."""
    values = {
        "root": str(root),
        "input": list(inputs) or [{"name": "all", "path": ["."]}],
        "output": {"unit_bytes": 5_000, "shard_bytes": 20_000, "max_document_bytes": 1_000_000},
        "split": {"validation": 0.2},
    }
    return CorpusFile.model_validate({**values, **sections})
