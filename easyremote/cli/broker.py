"""The embedded Apache Kafka: `easyremote broker ...`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from easyremote.cli.told import AsJson, say, told

__all__ = ["app"]

app = typer.Typer(help="The embedded Apache Kafka of this machine.", no_args_is_help=True)


@app.command("start")
@told
def broker_start(
    port: Annotated[int | None, typer.Option(help="Where it listens; unset: a free one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start it, or find the one that runs."""
    state = _broker(port).start(fetching=lambda: typer.echo("fetching Apache Kafka, 54 MB, once", err=True))
    _print_broker(state, as_json=as_json)


@app.command("stop")
@told
def broker_stop() -> None:
    """Stop it; its data stays."""
    typer.echo("stopped" if _broker().stop() else "it was not running")


@app.command("status")
@told
def broker_status(as_json: AsJson = False) -> None:
    """Say where it is; the exit code is 1 if it does not run."""
    state = _broker().status()
    if state is not None:
        _print_broker(state, as_json=as_json)
        return
    say(json.dumps({"running": False}) if as_json else "not running: 'easyremote broker start' starts it")
    raise typer.Exit(1)


@app.command("reset")
@told
def broker_reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop it and delete every topic and record."""
    if not yes:
        typer.confirm("Delete every topic and record of the embedded Kafka?", abort=True)
    _broker().reset()
    typer.echo("deleted")


def _broker(port: int | None = None) -> Any:  # Any: imported where it is used
    from easyremote.deploy.broker import EmbeddedBroker
    from easyremote.settings import load_settings

    return EmbeddedBroker(load_settings().data_dir, port=port)


def _print_broker(state: Any, *, as_json: bool) -> None:
    from msgspec import to_builtins

    if as_json:
        say(json.dumps({"running": True, **to_builtins(state)}))
    else:
        typer.echo(f"Apache Kafka {state.version} on {state.bootstrap_servers}, pid {state.pid}, log {state.log_file}")
