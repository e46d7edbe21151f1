"""`python -m shortrun` and the `shortrun` command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    from shortrun.cli.commands import run

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not end a run
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
