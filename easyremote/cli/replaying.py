"""Time travel: recorded input through today's code."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from easyremote.cli.told import say, told
from easyremote.terminal import json_line

if TYPE_CHECKING:
    from easyremote.pipelines import Pipeline
    from easyremote.pipelines.replaying import Told

__all__ = ["replay"]

_SHOWN = 10
_LAST_MS = 2**48
_DIFFERENT = 1
"""Exit code where there is a difference."""


@told
def replay(
    module: Annotated[str, typer.Argument(help="Python module that defines the pipeline.")],
    name: Annotated[str | None, typer.Option("--pipeline", help="Which, where it defines several.")] = None,
    begin: Annotated[
        str | None, typer.Option("--from", help="Results from this time on, ISO 8601 (UTC unless it says so) or ms.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Results before this time.")] = None,
    into: Annotated[str | None, typer.Option(help="Topic for the replay's results; unset: a new one.")] = None,
) -> None:
    """Run all that a pipeline's sources hold through its code as it is now, and compare with what was told then.

    The results go to a topic of their own. Exits with 1 where there is a difference, which is listed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from easyremote.agents.replays import replay as run_again
    from easyremote.clock import now_ms
    from easyremote.modules import import_module
    from easyremote.pipelines import registered
    from easyremote.settings import load_settings

    bounds = (_time_ms("--from", begin, 0), _time_ms("--to", end, _LAST_MS))
    import_module(module, "the argument")
    pipeline = _chosen(module, name, registered)
    topic = into or f"{pipeline.sink}.replay.{now_ms()}"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} records"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"replaying {pipeline.name}", total=None)
        found = run_again(load_settings(), pipeline, topic, bounds, lambda count: progress.advance(task, count))
    typer.echo(f"{pipeline.name}: {found.same:,} results are the same, byte by byte; the replay's are in {topic}")
    if found.open:
        typer.echo(f"{found.open:,} are of windows that are open yet")
    _tell("were told then and are not now", found.only_told)
    _tell("are told now and were not then", found.only_replayed)
    if not found.is_same:
        raise typer.Exit(_DIFFERENT)


def _tell(what: str, differences: list[Told]) -> None:
    if not differences:
        return
    typer.echo(f"{len(differences):,} {what}:")
    for _, value in differences[:_SHOWN]:
        say(f"  {json_line(value)}")
    if len(differences) > _SHOWN:
        typer.echo(f"  and {len(differences) - _SHOWN:,} more")


def _chosen(module: str, name: str | None, known: dict[str, Pipeline]) -> Pipeline:
    from easyremote.errors import ConfigError

    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None or name not in known:
        raise ConfigError(f"{module} defines {', '.join(known) or 'no pipeline'}: say which with --pipeline")
    return known[name]


def _time_ms(option: str, text: str | None, default: int) -> int:
    from easyremote.errors import ConfigError

    if text is None:
        return default
    if text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is no time: use ISO 8601, such as 2026-11-25T12:00, or ms") from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
