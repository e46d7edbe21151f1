"""`python -m shortrun` and the `shortrun` command."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    # before torch reads it: threads that wait spin for a moment and then sleep, because longer takes the core from others
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        from shortrun.cli.commands import run

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not end a run
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # while the modules of a command were being read
        print("shortrun: interrupted before anything had begun", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
