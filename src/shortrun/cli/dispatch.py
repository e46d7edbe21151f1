"""Which function a word of the command line stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from shortrun.errors import UserError, did_you_mean

Command = Callable[[list[str]], None]
"""Takes the words behind its own."""


def chosen(commands: Mapping[str, Command], word: str, group: str = "") -> Command:
    """The command of a word, such as `run` of the group `study`; raises UserError with the nearest one."""
    if word not in commands:
        raise UserError(f"There is no command '{f'{group} {word}'.strip()}': {did_you_mean(word, commands)}")
    return commands[word]


def elsewhere(module: str, function: str) -> Command:
    """A command in a module of its own in this room, which is imported once the command is asked for."""

    def command(argv: list[str]) -> None:
        getattr(import_module(f"shortrun.cli.{module}"), function)(argv)

    return command
