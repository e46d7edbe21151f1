"""What is said while a run trains comes out once and whole, also where a signal comes in between."""

from __future__ import annotations

import io

from rich.console import Console

from shortrun.cli.display import Display


def test_what_a_signal_says_while_a_line_is_written_comes_after_it() -> None:
    class Interrupted(io.StringIO):
        """A stream during whose first write a signal's handler has something to say."""

        said = False

        def write(self, text: str) -> int:
            if not self.said:
                self.said = True
                display.say("Finishing the step")
            return super().write(text)

    display, stream = Display(), Interrupted()
    display.console = Console(file=stream, width=40)
    display.say("Run folder runs/one")
    display.say("step 1/9")
    assert stream.getvalue().splitlines() == ["Run folder runs/one", "Finishing the step", "step 1/9"]
