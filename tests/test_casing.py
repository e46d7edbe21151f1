"""Case as marks: every text comes back, and few words need a mark."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortrun.tokens.casing import AS_IS, HEADLINE, MARKS, OTHERWISE, SENTENCE, both_cases, factored, restored

AWKWARD = "".join(sorted(MARKS)) + "'\u2019_ .:[\n9aAbZ\u0301ßẞİıǅǆǄςΣσﬁΩΩKkµμΜⅣⅳⒶⓐŉ日"
"""Marks, what parts words, and letters whose case is no pair of two."""

EXAMPLES = {
    "The Art of the Deal": "H the art of the deal",
    "Why the art of the deal still matters": "S why the art of the deal still matters",
    "Show HN: A tiny JavaScript engine for iOS": "S show HN: a tiny JavaScript engine for iOS",
    "How Google indexes the web": "S how *google indexes the web",
    "The Rise Of the Robots": "H the rise *of the robots",
    "Privacy and Security in Node.js [pdf]": "H privacy and security in node.js [pdf]",
    "U.S. sues, and I don't know why": "S u.s. *sues, and i don't know why",
    "Écoute: les Élèves": "H écoute: *les élèves",
    "İstanbul not constantinople": "S İstanbul not constantinople",
    "3D printing on a 2nd Raspberry Pi": "H 3D *printing on a 2nd raspberry pi",
    "a ǂ mark": "S *a !ǂ mark",
    " leading": "S  *leading",
    "": "",
}


def shown(text: str) -> str:
    return text.translate({ord(HEADLINE): "H", ord(SENTENCE): "S", ord(OTHERWISE): "*", ord(AS_IS): "!"})


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples(text: str) -> None:
    expected = EXAMPLES[text].replace("H", HEADLINE, 1) if EXAMPLES[text][:1] == "H" else EXAMPLES[text]
    assert shown(factored(text)) == shown(expected)
    assert "".join(restored(factored(text))) == text


@given(text=st.text() | st.text(st.sampled_from(AWKWARD)))
def test_every_text_comes_back(text: str) -> None:
    assert "".join(restored(factored(text))) == text


def test_every_letter_that_has_a_case_comes_back_in_each_place_and_mode() -> None:
    """Of all of Unicode: alone, first and inside a word, of a sentence and of a headline."""
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    letters = [one for one in every if {one.lower(), one.upper(), one.title(), one.casefold()} != {one}]
    assert len(letters) > 2500
    for pattern in ("{} x", "An {}b And B{}", "an {}b and b{}", "{}'{} A{}B"):
        text = "\n".join(pattern.replace("{}", letter) for letter in letters)
        assert "".join(restored(factored(text))) == text
    pairs = both_cases(frozenset("abzéσя"))
    assert pairs == frozenset("abzéσяABZÉΣЯ")


@given(text=st.text() | st.text(st.sampled_from(AWKWARD)))
def test_any_factored_text_stands_for_something(text: str) -> None:
    """A model writes what it likes. Each letter gives itself, its capital, or nothing."""
    letters = restored(text)
    assert len(letters) == len(text)
    for letter, stands_for in zip(text, letters, strict=True):
        assert stands_for in {"", letter, *both_cases(frozenset(letter))}
