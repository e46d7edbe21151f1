"""Repair of Unicode, and the language filter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version

from shortrun.errors import UserError, missing_extra
from shortrun.pipeline import corpus_file
from shortrun.pipeline.steps import Rejected
from shortrun.pipeline.text import Text
from shortrun.text.cleaning import clean

CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufff9-\ufffb]")
BREAKS = re.compile("\r\n?|[\x85\u2028\u2029]")
LANGUAGE_CHARACTERS = 3_000
"""Of a long document, only the beginning is looked at: the classifier needs no more."""


class Repair:
    """Wrongly decoded text, control characters, line breaks of all kinds, and what no document may contain."""

    name = "repair"

    def __init__(self, about: corpus_file.Repair) -> None:
        self._control = about.control_characters
        self._fix: Callable[[str], str] | None = None
        done = ["NUL characters, lone surrogates, space at the ends"]
        if about.ftfy:
            self._fix, library = _ftfy()
            done.insert(0, f"wrongly decoded text by {library}")
        if about.control_characters:
            done.append("control characters and other line breaks than \\n")
        self.about = ", ".join(done)

    def __call__(self, text: Text) -> Text | Rejected:
        made = text.text
        if self._fix and not made.isascii():
            made = self._fix(made)
        if self._control:
            made = CONTROL.sub("", BREAKS.sub("\n", made))
        made = clean(made, Counter(), one_line=False)
        if not made:
            return Rejected("blank")
        return text if made == text.text else Text(made)


def _ftfy() -> tuple[Callable[[str], str], str]:
    try:
        import ftfy
    except ImportError:
        raise missing_extra("repair.ftfy = true", "corpus") from None
    # only what was decoded wrongly: quotation marks, ligatures, widths and entities are the author's
    settings = ftfy.TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        fix_line_breaks=False,
        remove_terminal_escapes=False,
        remove_control_chars=False,
        normalization=None,
    )
    return (lambda text: ftfy.fix_text(text, settings)), f"ftfy {version('ftfy')}"


class Language:
    """Documents of other languages than those to keep are rejected."""

    name = "language"

    def __init__(self, about: corpus_file.Language) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise missing_extra("language.keep", "language") from None
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if unknown := sorted(set(about.keep) - set(identifier.labels)):
            raise UserError(f'language.keep: "{unknown[0]}" is no language that py3langid knows, such as "en" or "de"')
        self._classify, self._keep, self._least = identifier.classify, frozenset(about.keep), about.least
        self.about = f"languages {', '.join(about.keep)} by py3langid {version('py3langid')}"

    def __call__(self, text: Text) -> Text | Rejected:
        language, probability = self._classify(text.text[:LANGUAGE_CHARACTERS])
        if language not in self._keep:
            return Rejected(f"language {language}", f"probability {probability:.2f}")
        if probability < self._least:
            return Rejected("language uncertain", f"{language} with probability {probability:.2f}")
        return text
