"""The command line. Everything heavy is imported by the command that needs it, so that `--help` is quick."""

from __future__ import annotations

import typer

from easyremote.cli import bench, broker, calls, dlq, functions, models, pipelines, replaying, system, topics
from easyremote.logs import configure_logging

__all__ = ["main"]

app = typer.Typer(
    help="Functions, models and streams on Apache Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (system.up, system.status, calls.call, calls.tail, functions.functions, replaying.replay):
    app.command()(command)
groups = {
    "broker": broker.app,
    "dlq": dlq.app,
    "models": models.app,
    "pipelines": pipelines.app,
    "topics": topics.app,
    "bench": bench.app,
}
for name, group in groups.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line."""
    configure_logging("WARNING")
    app(prog_name="easyremote")
