"""What the commands share: errors as one line, texts that steer no terminal, and the option for JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

from easyremote.errors import EasyRemoteError
from easyremote.terminal import plain

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["AsJson", "cells", "say", "told"]

P = ParamSpec("P")
R = TypeVar("R")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def told(command: Callable[P, R]) -> Callable[P, R]:
    """Turn this package's errors into one line and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EasyRemoteError as error:
            # What a remote function raised has lines of its own; none of them can pass for one of this program.
            say(f"error: {error}".replace("\n", "\n  "), err=True, lines=True)
            raise typer.Exit(1) from error

    return wrapped


def say(text: str, *, err: bool = False, lines: bool = False) -> None:
    """Print a text that anyone may have written: what would steer a terminal is shown, not sent to it."""
    typer.echo(plain(text, lines=lines), err=err)


def cells(*texts: str) -> list[Text]:
    """Return the cells of a table, such as texts that anyone may have written; none of them is markup."""
    from rich.text import Text

    return [Text(plain(one)) for one in texts]
