"""`python -m shortrun` and the `shortrun` command."""

from __future__ import annotations

import io
import os
import sys
import traceback

from shortrun.model.threads import waiting


def main() -> None:
    os.environ.update(waiting(os.environ))  # before torch reads it
    try:
        from shortrun.cli.commands import run

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not end a run
        sys.exit(run(sys.argv[1:]))
    except Exception:
        from shortrun.text.visible import visible_lines

        print(visible_lines(traceback.format_exc()), file=sys.stderr)
        print("shortrun: this should not have happened; docs/security.md says how to report it", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # while the modules of a command were being read
        print("shortrun: interrupted before anything had begun", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
