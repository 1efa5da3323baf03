"""Topics of one's own: `easyremote topics ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from easyremote.cli.told import told

__all__ = ["app"]

app = typer.Typer(help="Topics of one's own, such as those that replies go to.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `create` a command of its own: an app of one command has no name for it else."""


@app.command("create")
@told
def topics_create(
    name: Annotated[str, typer.Argument(help="Its full name; a call says it as reply_to.")],
    partitions: Annotated[int, typer.Option(help="How many.", min=1, max=1_000)] = 1,
) -> None:
    """Create a topic to which calls may have their replies sent; one that is there already stays as it is."""
    from easyremote.errors import TopicError
    from easyremote.settings import load_settings
    from easyremote.topics.admin import TopicAdmin
    from easyremote.topics.reply_topics import ReplyTopics

    settings = load_settings()
    fault = ReplyTopics(settings).name_fault(name)
    if fault is not None:
        raise TopicError(str(fault))
    made = TopicAdmin(settings).create(name, partitions)
    typer.echo(f"{name} is created" if made else f"{name} is there already")
