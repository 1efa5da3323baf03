"""Models of running nodes: `easyremote models ...`."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from easyremote.cli.told import AsJson, cells, say, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from easyremote.inference.nodes import NodeWatch
    from easyremote.settings import Settings
    from easyremote.topics.model_control import ModelOrder, Scope, Wanted
    from easyremote.topics.producer import RecordProducer
    from easyremote.topics.records import ModelState

__all__ = ["app"]

app = typer.Typer(help="Which versions of which models nodes hold; change that while calls run.", no_args_is_help=True)

_CAUGHT_UP_S = 10.0

Model = Annotated[str, typer.Argument(help="The model's name, as 'models list' and replies say it.")]
Version = Annotated[str, typer.Argument(help="What replies will call this version.")]
ClassPath = Annotated[str | None, typer.Option("--class", help="module:Class; unset: as the node's settings name it.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="An argument of the class; JSON, or else a text."),
]
Weights = Annotated[str | None, typer.Option(help="First argument of the class: a path, a hub name.")]
Node = Annotated[str | None, typer.Option("--node", help="Only this node.")]
Pool = Annotated[str | None, typer.Option("--pool", help="Only nodes of this pool.")]
Patience = Annotated[float, typer.Option("--timeout", help="How long to wait for the nodes, s.", min=1)]


@app.command("list")
@told
def models_list(as_json: AsJson = False) -> None:
    """List the models of the live nodes: versions, state, what can be gone back to."""
    from msgspec import to_builtins

    found = _held()
    if as_json:
        say(json.dumps([{"node": node} | to_builtins(state, str_keys=True) for node, state in found]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("node", "model", "version", "state", "previous")
    for node, state in found:
        version = "" if state.state == "unloaded" else state.version
        table.add_row(*cells(node, state.name, version, state.state, state.previous or ""))
    Console().print(table)
    for node, state in found:
        if state.reason is not None:  # below the table, where a long line stays one
            say(_told_of(node, state))


@app.command("load", help="Load a model that nodes do not hold yet; as swap, and --class says what it is.")
@app.command("swap")
@told
def models_swap(  # noqa: PLR0913, PLR0917  # each is an option
    model: Model,
    version: Version,
    path: ClassPath = None,
    weights: Weights = None,
    params: Params = None,
    node: Node = None,
    pool: Pool = None,
    timeout_s: Patience = 300,
) -> None:
    """Let another version answer: it is loaded and warmed up first, and if that fails the old one stays."""
    from easyremote.topics.model_control import ModelSource, Scope

    source = ModelSource(version=version, path=path, weights=weights, params=dict(map(_param, params or ())))
    _order(model, Scope(node=node, pool=pool), lambda _last: source, timeout_s)


@app.command("rollback")
@told
def models_rollback(model: Model, node: Node = None, pool: Pool = None, timeout_s: Patience = 300) -> None:
    """Go back to what was there before the last order for these nodes."""
    from easyremote.errors import ConfigError
    from easyremote.topics.model_control import Scope

    scope = Scope(node=node, pool=pool)

    def back(last: ModelOrder | None) -> Wanted:
        if last is None:
            raise ConfigError(f"nothing was ordered of {model!r} for {scope}: there is nothing to go back to")
        return last.before

    _order(model, scope, back, timeout_s)


@app.command("unload")
@told
def models_unload(model: Model, node: Node = None, pool: Pool = None, timeout_s: Patience = 300) -> None:
    """Free a model; calls that still come for it go to other nodes, or wait for one."""
    from easyremote.topics.model_control import UNLOADED, Scope

    _order(model, Scope(node=node, pool=pool), lambda _last: UNLOADED, timeout_s)


def _param(said: str) -> tuple[str, Any]:  # Any: as the class takes it
    from easyremote.errors import ConfigError

    name, is_said, value = said.partition("=")
    if not (name.isidentifier() and is_said):
        raise ConfigError(f"--param {said}: write NAME=VALUE, as in --param backend=onnx-int8")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _held() -> list[tuple[str, ModelState]]:
    from easyremote.inference.nodes import NodeWatch
    from easyremote.settings import load_settings

    with closing(NodeWatch(load_settings())) as nodes:
        nodes.wait_caught_up(_CAUGHT_UP_S)
        return [(beat.node_id, state) for beat in nodes.live() for state in beat.models]


def _order(model: str, scope: Scope, wanted: Callable[[ModelOrder | None], Wanted], timeout_s: float) -> None:
    from rich.console import Console

    from easyremote.inference.nodes import NodeWatch
    from easyremote.settings import load_settings
    from easyremote.topics.model_control import CONFIGURED, ModelOrder, OrderWatch
    from easyremote.topics.producer import RecordProducer
    from easyremote.topics.wire import uuid7

    settings = load_settings()
    beat = threading.Event()
    with ExitStack() as stack:
        orders = stack.enter_context(closing(OrderWatch(settings)))
        nodes = stack.enter_context(closing(NodeWatch(settings, changed=beat.set)))
        producer = stack.enter_context(closing(RecordProducer(settings)))
        orders.wait_caught_up(_CAUGHT_UP_S)
        nodes.wait_caught_up(_CAUGHT_UP_S)
        last = orders.covering(model, scope)
        now_ms = time.time_ns() // 1_000_000
        order = ModelOrder(
            id=uuid7(now_ms),
            model=model,
            wanted=wanted(last),
            before=CONFIGURED if last is None else last.wanted,
            scope=scope,
            ordered_ms=now_ms,
        )
        meant = _meant(nodes, scope)
        _write(settings, producer, order.key, order)
        with Console(stderr=True).status(*cells(f"{model}: waiting for {len(meant)} nodes")):
            ends = time.monotonic() + timeout_s
            while (told_by := _outcomes(nodes, order)).keys() < meant and time.monotonic() < ends:
                beat.clear()
                beat.wait(0.5)
        failed = {node: state for node, state in told_by.items() if state.reason is not None}
        if failed and len(failed) == len(told_by):
            # A node that starts later need not fail at it too.
            _write(settings, producer, order.key, last if last is not None and last.key == order.key else None)
    _tell(meant, told_by, failed)


def _meant(nodes: NodeWatch, scope: Scope) -> set[str]:
    from easyremote.errors import ConfigError

    meant = {
        beat.node_id
        for beat in nodes.live()
        # One that serves nothing has no calls for a version to answer; anybody may write its heartbeat.
        if beat.pool is not None and beat.partitions and scope.holds(beat.node_id, beat.pool, beat.node_type)
    }
    if not meant:
        raise ConfigError(f"no live node is meant by {scope}: 'easyremote models list' says which there are")
    return meant


def _outcomes(nodes: NodeWatch, order: ModelOrder) -> dict[str, ModelState]:
    return {
        beat.node_id: state
        for beat in nodes.live()
        for state in beat.models
        if state.name == order.model and state.order_id == order.id
    }


def _write(settings: Settings, producer: RecordProducer, key: str, order: ModelOrder | None) -> None:
    from easyremote.errors import TopicError
    from easyremote.topics.catalog import MODELS
    from easyremote.topics.records import encode

    producer.send(settings.namespace + MODELS, None if order is None else encode(order), key=key)
    if producer.flush(_CAUGHT_UP_S):
        raise TopicError("the order was not acknowledged by Kafka in time; look at 'easyremote models list'")


def _told_of(node: str, state: ModelState) -> str:
    if state.reason is None:
        return f"{node}: {state.name} {state.state} {state.version}"
    return f"{node}: {state.name} {state.coming or 'as ordered last'} failed, {state.reason}"


def _tell(meant: set[str], told_by: dict[str, ModelState], failed: dict[str, ModelState]) -> None:
    for node, state in sorted(told_by.items()):
        say(_told_of(node, state))
    silent = sorted(meant - told_by.keys())
    if silent:
        say(f"error: no word from {', '.join(silent)} in time; the order stands", err=True)
    if failed:
        typer.echo("error: where it failed, what answered before goes on", err=True)
    if failed or silent:
        raise typer.Exit(1)
