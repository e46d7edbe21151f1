"""Near-duplicates are exactly those that comparing all pairs would find."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shortrun.check.near import SHINGLE, near_duplicates

TEXTS = st.lists(st.text("abc é🚀", max_size=14), max_size=12)


def stretches(text: str) -> set[str]:
    plain = " ".join(text.casefold().split()).ljust(SHINGLE)
    return {plain[place : place + SHINGLE] for place in range(len(plain) - SHINGLE + 1)}


def jaccard(one: str, other: str) -> float:
    return len(stretches(one) & stretches(other)) / len(stretches(one) | stretches(other))


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_they_are_those_of_all_pairs(documents: list[str], others: list[str], threshold: float) -> None:
    found = {near.document: near.jaccard for near in near_duplicates(documents, others, threshold)}
    best = {index: max((jaccard(text, other) for other in others), default=0.0) for index, text in enumerate(documents)}
    assert found == {index: value for index, value in best.items() if value >= threshold}


def test_the_nearest_one_is_named() -> None:
    others = ["something else entirely", "Show HN: A tiny compiler in Rust", "Show HN: a tiny compiler in Rust!"]
    (near,) = near_duplicates(["Show HN: A Tiny Compiler in Rust"], others, 0.8)
    assert (near.document, near.other, near.jaccard) == (0, 1, 1.0)
