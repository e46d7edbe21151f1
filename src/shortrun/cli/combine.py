"""`shortrun combine`."""

from __future__ import annotations

import json

import tyro

from shortrun.cli.options import Combine
from shortrun.cli.output import say, show_members, show_run


def combine(argv: list[str]) -> None:
    options = tyro.cli(Combine, prog="shortrun combine", args=argv)
    from shortrun import api
    from shortrun.runs.folder import RunFolder
    from shortrun.runs.members import members_of
    from shortrun.train.events import Event, Note

    def tell(event: Event) -> None:
        if isinstance(event, Note):
            say(event.text)

    result = api.combine(options.runs, out=options.out, fit=options.fit, data_path=options.data.path, on_event=tell)
    members = members_of(RunFolder.open(result.run).manifest())
    if options.json:
        print(json.dumps({**result.as_dict(), "members": [member.told() for member in members]}))
        return
    show_members(members)
    show_run(result, as_json=False)
