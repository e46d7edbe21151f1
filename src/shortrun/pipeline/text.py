"""A text, with what several rules ask of it computed once."""

from __future__ import annotations

from functools import cached_property


class Text:
    """A document on its way through the steps."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def words(self) -> list[str]:
        """What stands between white space."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without white space at their ends."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between blank lines."""
        return [part for part in map(str.strip, self.text.split("\n\n")) if part]
