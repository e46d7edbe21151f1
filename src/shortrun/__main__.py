"""`python -m shortrun` and the `shortrun` command."""

from __future__ import annotations

import sys


def main() -> None:
    from shortrun.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
