"""`shortrun serve`: a playground for one run or two, in the browser."""

from __future__ import annotations

import json
import sys

import tyro
from rich.console import Console

from shortrun.cli.options import Serve
from shortrun.cli.output import say
from shortrun.errors import missing_extra


def serve(argv: list[str]) -> None:
    """Answers until it is interrupted, which is how it ends."""
    options = tyro.cli(Serve, prog="shortrun serve", args=argv)
    _require_extra()
    from shortrun.serve.app import Playground
    from shortrun.serve.bounds import is_loopback
    from shortrun.serve.connections import listening, server_of

    with listening(options.host, options.port) as place:
        with Console(stderr=True, highlight=False).status("reading the models"):
            playground = Playground(list(options.runs))
        port = place.getsockname()[1]
        url = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}/"
        runs = [run.as_dict() for run in playground.models.runs]
        for run in runs:
            for note in run["notes"]:
                say(note)
        if not is_loopback(options.host):
            print(
                f"Warning: whoever can reach {options.host} can use this page, which asks for no password and is not "
                "encrypted. Leave --host out to keep it to this machine.",
                file=sys.stderr,
            )

        def ready() -> None:
            if options.json:
                print(json.dumps({"url": url, "host": options.host, "port": port, "runs": runs}), flush=True)
                return
            for run in runs:
                state = "" if run["complete"] else ", still training or stopped"
                print(f"{run['name']}: step {run['step']:,}{state}")
            print(f"open {url} (Ctrl-C ends it)", flush=True)

        try:
            server_of(playground.app(options.host), ready).run(sockets=[place])
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
        finally:
            playground.close()


def _require_extra() -> None:
    """Raises UserError where the extra `playground` is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import vl_convert  # noqa: F401  # it brings the scripts that draw charts
    except ImportError:
        raise missing_extra("The playground", "playground") from None
