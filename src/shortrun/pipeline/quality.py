"""Quality rules, as published: they reject a document, and C4's take lines out of it.

Sources: Gopher (Rae et al. 2021, arXiv 2112.11446), C4 (Raffel et al. 2020, JMLR 21), FineWeb (Penedo et al. 2024, arXiv
2406.17557), NeMo Curator's heuristic filters. Words stand between white space, so that the limits on words mean little for scripts without it.
"""

from __future__ import annotations

import re

from shortrun.pipeline import rules
from shortrun.pipeline.repetition import Repetition
from shortrun.pipeline.steps import Rejected, Step
from shortrun.pipeline.text import Text

STOP_WORDS = frozenset("the be to of and that have with".split())
BULLETS = ("•", "‣", "▪", "◦", "●", "-", "*", "–")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"', "”", "'", "’")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
NOTICES = (*POLICIES, "terms & conditions", "terms and conditions", "all rights reserved", "copyright ©")
SENTENCE = re.compile(r"[.!?][\"”'’)]*(?:\s|$)")
LINK = re.compile(r"https?://\S+|www\.\S+")
LETTER = re.compile(r"[^\W\d_]")
SHORT_LINE = 30


class Gopher:
    """Gopher's rules on words, symbols and lines."""

    name = "gopher"
    about = "rules of Gopher (arXiv 2112.11446, A.1.1)"

    def __init__(self, limits: rules.Gopher) -> None:
        self._limits = limits

    def __call__(self, text: Text) -> Text | Rejected:
        words, limits = text.words, self._limits
        count = len(words)
        if count < limits.min_words:
            return Rejected("too few words", f"{count}")
        if count > limits.max_words:
            return Rejected("too many words", f"{count}")
        if not count:
            return text
        mean = sum(map(len, words)) / count
        if not limits.min_mean_word <= mean <= limits.max_mean_word:
            return Rejected("words too short or too long", f"{mean:.1f} characters on average")
        for what, found in (("hashes", text.text.count("#")), ("ellipses", _ellipses(text.text))):
            if found / count > limits.symbols:
                return Rejected(f"too many {what}", f"{found / count:.2f} for each word")
        lines = text.lines
        if (share := sum(line.startswith(BULLETS) for line in lines) / len(lines)) > limits.bullets:
            return Rejected("lines with bullets", f"{share:.0%}")
        if (share := sum(line.endswith(ELLIPSES) for line in lines) / len(lines)) > limits.ellipses:
            return Rejected("lines that end in an ellipsis", f"{share:.0%}")
        if (share := sum(bool(LETTER.search(word)) for word in words) / count) < limits.letters:
            return Rejected("too few words with a letter", f"{share:.0%}")
        if limits.stop_words and (found := len(STOP_WORDS.intersection(words))) < limits.stop_words:
            return Rejected("too few stop words", f"{found}")
        return text


class C4:
    """C4's rules: they take lines out, then reject what is left of some documents."""

    name = "c4"
    about = "rules of C4 (JMLR 21:140, 2.2)"

    def __init__(self, limits: rules.C4) -> None:
        self._limits = limits

    def __call__(self, text: Text) -> Text | Rejected:
        limits, lowered = self._limits, text.text.lower()
        if limits.lorem_ipsum and "lorem ipsum" in lowered:
            return Rejected("lorem ipsum")
        if limits.braces and "{" in text.text:
            return Rejected("curly bracket")
        kept = [line for line in text.text.split("\n") if not line.strip() or self._keeps(line.strip())]
        made = re.sub("\n{3,}", "\n\n", "\n".join(kept)).strip()
        if not made:
            return Rejected("no line left")
        if (found := len(SENTENCE.findall(made))) < limits.min_sentences:
            return Rejected("too few sentences", f"{found}")
        return text if made == text.text else Text(made)

    def _keeps(self, line: str) -> bool:
        limits = self._limits
        if line.count(" ") + 1 < limits.min_words_of_a_line and len(line.split()) < limits.min_words_of_a_line:
            return False
        if limits.terminal_punctuation and (not line.endswith(TERMINAL) or line.endswith(ELLIPSES)):
            return False
        if limits.policies:
            lowered = line.lower()
            return "javascript" not in lowered and not any(words in lowered for words in POLICIES)
        return True


class FineWeb:
    """FineWeb's own rules on lines."""

    name = "fineweb"
    about = "rules of FineWeb (arXiv 2406.17557, 3.6)"

    def __init__(self, limits: rules.FineWeb) -> None:
        self._limits = limits

    def __call__(self, text: Text) -> Text | Rejected:
        limits, lines = self._limits, text.lines
        if not lines:
            return Rejected("no line left")
        if (share := sum(line.endswith(TERMINAL) for line in lines) / len(lines)) < limits.punctuation:
            return Rejected("lines without punctuation", f"{1 - share:.0%}")
        if (share := sum(len(line) < SHORT_LINE for line in lines) / len(lines)) > limits.short_lines:
            return Rejected("short lines", f"{share:.0%}")
        repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
        if (share := repeated / len(text)) > limits.repeated_lines:
            return Rejected("characters in repeated lines", f"{share:.0%}")
        return text


class Links:
    """NeMo Curator's rules on links and legal notices."""

    name = "links"
    about = "rules on links and boilerplate of NeMo Curator"

    def __init__(self, limits: rules.Links) -> None:
        self._limits = limits

    def __call__(self, text: Text) -> Text | Rejected:
        if "http" in text.text or "www." in text.text:
            share = sum(map(len, LINK.findall(text.text))) / len(text)
            if share > self._limits.links:
                return Rejected("links", f"{share:.0%} of the characters")
        lowered = text.text.lower()
        if any(words in lowered for words in NOTICES):
            parts = [part.lower() for part in text.paragraphs]
            share = sum(any(words in part for words in NOTICES) for part in parts) / len(parts)
            if share > self._limits.boilerplate:
                return Rejected("boilerplate", f"{share:.0%} of the paragraphs")
        return text


def _ellipses(text: str) -> int:
    return text.count("...") + text.count("…")


def quality_steps(quality: rules.Quality) -> list[Step]:
    """The steps that the rules of a corpus file name, in FineWeb's order."""
    steps: list[Step] = [
        Repetition(quality.repetition),
        Gopher(quality.gopher),
        C4(quality.c4),
        FineWeb(quality.fineweb),
        Links(quality.links),
    ]
    return [step for step in steps if step.name in quality.rules]
