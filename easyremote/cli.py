"""The command line. Everything heavy is imported by the command that needs it, so that `--help` is quick."""

from __future__ import annotations

import base64
import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from easyremote.errors import EasyRemoteError
from easyremote.logs import configure_logging

__all__ = ["main"]

app = typer.Typer(
    help="Functions, models and streams on Apache Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
broker_app = typer.Typer(help="The embedded Apache Kafka of this machine.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure on this machine; figures are ratios of one run.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")
app.add_typer(bench_app, name="bench")

P = ParamSpec("P")
R = TypeVar("R")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _told(command: Callable[P, R]) -> Callable[P, R]:
    """Turn this package's errors into one line and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EasyRemoteError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error

    return wrapped


@app.command()
@_told
def up() -> None:
    """Start everything on this machine and keep it running until Ctrl+C."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from easyremote.deploy.supervisor import Supervisor
    from easyremote.settings import load_settings

    settings = load_settings()
    supervisor = Supervisor(settings.model_copy(update={"node_id": "worker-1"}))

    def table() -> Table:
        view = Table("part", "state", "", "restarts")
        for part in supervisor.parts:
            view.add_row(part.name, part.state, part.detail, str(part.restarts))
        return view

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # A terminal shows the table live; a log file gets it at each change that matters.
    console = Console(stderr=True)
    with Live(get_renderable=table, console=console, refresh_per_second=4, transient=False), supervisor:
        try:
            supervisor.start()
            console.print(
                f"ready on Kafka {supervisor.settings.bootstrap_servers()}; the worker's log is {supervisor.log_file}"
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


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the system is ready; the exit code is 0 if so, else 1."""
    from easyremote.deploy.status import system_status

    found = system_status()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _print_status(found)
    raise typer.Exit(0 if found["ready"] else 1)


@app.command()
@_told
def call(
    function: Annotated[str, typer.Argument(help="Name of the function.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Each as JSON, else taken as text; @FILE sends the file's bytes as base64."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.001)] = 30.0,
    target: Annotated[str | None, typer.Option(help="This node and no other.")] = None,
) -> None:
    """Call a function and print its result as JSON."""
    from easyremote.inference.client import CallOptions, Client
    from easyremote.topics.replying import encode_reply

    values = [_argument(one) for one in arguments or []]
    with Client() as client:
        result = client.call(function, *values, options=CallOptions(timeout_s=timeout, target=target))
    typer.echo(encode_reply(result).decode())


@app.command()
@_told
def tail(
    topic: Annotated[str, typer.Argument(help="alerts, aggregates, requests.dlq, ...")],
    from_beginning: Annotated[bool, typer.Option(help="All that is there, not only what comes.")] = False,
    count: Annotated[int, typer.Option("-n", help="Stop after so many records; 0: never.", min=0)] = 0,
) -> None:
    """Print a topic's values, one line each, as they come; Ctrl+C ends it."""
    import queue

    from easyremote.settings import load_settings
    from easyremote.topics.follower import Follower

    settings = load_settings()
    arrived: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    start = "beginning" if from_beginning else "end"
    follower = Follower(
        settings,
        settings.namespace + topic,
        lambda messages: arrived.put(list(messages)),
        start=start,  # type: ignore[arg-type]  # mypy widens the literal
    )
    typer.echo(f"following {settings.namespace + topic}", err=True)
    seen = 0
    try:
        while count == 0 or seen < count:
            for message in arrived.get():
                if count and seen >= count:
                    break
                typer.echo((message.value() or b"null").decode(errors="replace"))
                seen += 1
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the reader has seen enough
    finally:
        follower.close()


@broker_app.command("start")
@_told
def broker_start(
    port: Annotated[int | None, typer.Option(help="Where it listens; unset: a free one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start it, or find the one that runs."""
    state = _broker(port).start(fetching=lambda: typer.echo("fetching Apache Kafka, 54 MB, once", err=True))
    _print_broker(state, as_json=as_json)


@broker_app.command("stop")
@_told
def broker_stop() -> None:
    """Stop it; its data stays."""
    typer.echo("stopped" if _broker().stop() else "it was not running")


@broker_app.command("status")
@_told
def broker_status(as_json: AsJson = False) -> None:
    """Say where it is; the exit code is 1 if it does not run."""
    state = _broker().status()
    if state is not None:
        _print_broker(state, as_json=as_json)
        return
    typer.echo(json.dumps({"running": False}) if as_json else "not running: 'easyremote broker start' starts it")
    raise typer.Exit(1)


@broker_app.command("reset")
@_told
def broker_reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop it and delete every topic and record."""
    if not yes:
        typer.confirm("Delete every topic and record of the embedded Kafka?", abort=True)
    _broker().reset()
    typer.echo("deleted")


@bench_app.command("rpc")
@_told
def bench_rpc(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    calls: Annotated[
        int, typer.Option(help="Calls one at a time; as many times 10 with 256 outstanding.", min=10)
    ] = 2_000,
) -> None:
    """Measure calls of 100 bytes: raw confluent-kafka, direct, routed."""
    from easyremote.bench import rpc

    rpc.main(json_file, calls)


@bench_app.command("stream")
@_told
def bench_stream(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    readings: Annotated[int, typer.Option(help="How many readings.", min=10_000)] = 1_000_000,
) -> None:
    """Measure windows over JSON readings: raw consume, this engine, a plain Faust agent."""
    from easyremote.bench import stream

    stream.main(json_file, readings)


def _argument(text: str) -> Any:  # Any: whatever the JSON says
    if text.startswith("@"):
        try:
            return base64.b64encode(Path(text[1:]).read_bytes()).decode()
        except OSError as error:
            raise typer.BadParameter(f"{text}: {error.strerror}; write '\"{text}\"' for the text itself") from error
    try:
        return json.loads(text)
    except ValueError:
        return text


def _broker(port: int | None = None) -> Any:  # Any: imported where it is used
    from easyremote.deploy.broker import EmbeddedBroker
    from easyremote.settings import load_settings

    return EmbeddedBroker(load_settings().data_dir, port=port)


def _print_broker(state: Any, *, as_json: bool) -> None:
    from msgspec import to_builtins

    if as_json:
        typer.echo(json.dumps({"running": True, **to_builtins(state)}))
    else:
        typer.echo(f"Apache Kafka {state.version} on {state.bootstrap_servers}, pid {state.pid}, log {state.log_file}")


def _print_status(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("ready" if found["ready"] else f"not ready: {found['reason']}")
    if not found["workers"]:
        return
    table = Table("worker", "ready", "functions", "in flight", "calls", "failed", "cpu %")
    for one in found["workers"]:
        table.add_row(
            one["node_id"],
            f"{', '.join(one['ready'])} of {', '.join(one['roles'])}",
            ", ".join(one["functions"]),
            str(one["in_flight"]),
            str(one["total_requests"]),
            str(one["failed_requests"]),
            f"{one['cpu_percent']:.0f}",
        )
    console.print(table)


def main() -> None:
    """Run the command line."""
    configure_logging("WARNING")
    app(prog_name="easyremote")


if __name__ == "__main__":
    main()
