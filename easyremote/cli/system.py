"""The whole system on this machine: start it, ask how it is."""

from __future__ import annotations

import json
import signal
from typing import Annotated, Any

import typer

from easyremote.cli.told import AsJson, cells, say, told

__all__ = ["status", "up"]


@told
def up(
    at_least_once: Annotated[
        bool,
        typer.Option(help="Streams send results again after a crash, and not in transactions."),
    ] = False,
) -> None:
    """Start everything on this machine and keep it running until Ctrl+C."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from easyremote.deploy.supervisor import Supervisor
    from easyremote.settings import load_settings

    settings = load_settings()
    environment = {"EASYREMOTE_DELIVERY": "at_least_once"} if at_least_once else {}
    supervisor = Supervisor(settings.model_copy(update={"node_id": "worker-1"}), environment=environment)

    def table() -> Table:
        view = Table("part", "state", "", "restarts")
        for part in supervisor.parts:
            view.add_row(*cells(part.name, part.state, part.detail, str(part.restarts)))
        return view

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # A terminal shows the table live; a log file gets it at each change that matters.
    console = Console(stderr=True)
    with Live(get_renderable=table, console=console, refresh_per_second=4, transient=False), supervisor:
        try:
            supervisor.start()
            console.print(
                *cells(
                    f"ready on Kafka {supervisor.settings.bootstrap_servers()}; the worker's log is "
                    f"{supervisor.log_file}"
                )
            )
            console.print("try: easyremote call text_sentiment_analysis 'I love it'   (Ctrl+C stops everything)")
            supervisor.watch()
        except KeyboardInterrupt:
            console.print("stopping")


def _interrupt(_number: int, _frame: object) -> None:
    # A second signal must not cut the stopping short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@told
def status(as_json: AsJson = False) -> None:
    """Say whether the system is ready; the exit code is 0 if so, else 1."""
    from easyremote.deploy.status import system_status

    found = system_status()
    if as_json:
        say(json.dumps(found))
    else:
        _print_status(found)
    raise typer.Exit(0 if found["ready"] else 1)


def _print_status(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(*cells("ready" if found["ready"] else f"not ready: {found['reason']}"))
    if not found["workers"]:
        return
    table = Table("worker", "ready", "functions", "in flight", "calls", "failed", "cpu %")
    for one in found["workers"]:
        row = (
            one["node_id"],
            f"{', '.join(one['ready'])} of {', '.join(one['roles'])}",
            ", ".join(one["functions"]),
            str(one["in_flight"]),
            str(one["total_requests"]),
            str(one["failed_requests"]),
            f"{one['cpu_percent']:.0f}",
        )
        table.add_row(*cells(*row))
    console.print(table)
