"""Pipelines of one's own: what they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from easyremote.cli.told import cells, told

__all__ = ["app"]

app = typer.Typer(help="Look at pipelines of one's own.", no_args_is_help=True)

_NOWHERE = "127.0.0.1:9"

Module = Annotated[str, typer.Argument(help="Python module that defines pipelines, as EASYREMOTE_PIPELINES names it.")]


@app.command("explain")
@told
def explain(
    module: Module,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid flowchart.")] = False,
) -> None:
    """Print what the pipelines of a module do, and the topics that they use."""
    from easyremote.errors import ConfigError
    from easyremote.modules import import_module
    from easyremote.pipelines import registered
    from easyremote.pipelines.explaining import explain as explained
    from easyremote.pipelines.explaining import mermaid as picture

    with _some_kafka():
        import_module(module, "the argument")
    if not registered:
        raise ConfigError(f"{module} defines no pipeline: end one with .to('topic')")
    if mermaid:
        typer.echo(picture(registered.values()))
        return
    from rich.console import Console
    from rich.table import Table

    for pipeline in registered.values():
        table = Table(show_header=False, box=None)
        for what, how in explained(pipeline):
            table.add_row(*cells(what, how))
        Console(soft_wrap=True).print(table)


@contextmanager
def _some_kafka() -> Iterator[None]:
    """Name a Kafka where none is: a module that is a worker of its own asks for one, but what it does is not there."""
    if "EASYREMOTE_KAFKA" in os.environ:
        yield
        return
    os.environ["EASYREMOTE_KAFKA"] = _NOWHERE
    try:
        yield
    finally:
        del os.environ["EASYREMOTE_KAFKA"]
