"""What the commands share: errors as one line, and the option for JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar

import typer

from easyremote.errors import EasyRemoteError

__all__ = ["AsJson", "told"]

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
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error

    return wrapped
