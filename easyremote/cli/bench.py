"""Measurements: `easyremote bench ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from easyremote.cli.told import told

__all__ = ["app"]

app = typer.Typer(help="Measure on this machine; figures are ratios of one run.", no_args_is_help=True)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]


@app.command("rpc")
@told
def bench_rpc(
    json_file: JsonFile = None,
    calls: Annotated[
        int, typer.Option(help="Calls one at a time; as many times 10 with 256 outstanding.", min=10)
    ] = 2_000,
) -> None:
    """Measure calls of 100 bytes: raw confluent-kafka, direct, routed."""
    from easyremote.bench import rpc

    rpc.main(json_file, calls)


@app.command("stream")
@told
def bench_stream(
    json_file: JsonFile = None,
    readings: Annotated[int, typer.Option(help="How many readings.", min=10_000)] = 1_000_000,
    peers: Annotated[
        Path | None, typer.Option(help="Python with the packages of requirements/stream-peers.txt.", exists=True)
    ] = None,
) -> None:
    """Measure streams: raw consume, this engine, a plain Faust agent, pipelines of each kind, latency, peers."""
    from easyremote.bench import stream

    stream.main(json_file, readings, peers)


@app.command("balance")
@told
def bench_balance(
    json_file: JsonFile = None,
    calls: Annotated[int, typer.Option(help="How many calls.", min=1_000)] = 100_000,
    variation: Annotated[
        float, typer.Option(help="Standard deviation of a call's cost, as part of its mean.", min=0, max=3)
    ] = 0.25,
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.")] = 1,
) -> None:
    """Simulate 8 unequal nodes behind each strategy of the balancer: response times, and to the ideal's."""
    from easyremote.bench import balance

    balance.main(json_file, calls, variation, seed)


@app.command("inference")
@told
def bench_inference(
    json_file: JsonFile = None,
    seconds: Annotated[float, typer.Option(help="At each load, in three turns.", min=1)] = 8.0,
) -> None:
    """Measure models through Kafka: 64 callers, one at a time, the tail at half load, against the bare model."""
    from easyremote.bench import inference

    inference.main(json_file, seconds)


@app.command("nab")
@told
def bench_nab(
    data: Annotated[Path, typer.Option(help="Folder of data/<category>/*.csv and windows.json.", exists=True)],
    json_file: JsonFile = None,
) -> None:
    """Score the anomaly detector by the rules of the Numenta Anomaly Benchmark, at its shipped threshold."""
    from easyremote.bench import nab

    nab.main(data, json_file)


@app.command("memory")
@told
def bench_memory(
    json_file: JsonFile = None,
    calls: Annotated[int, typer.Option(help="How many echoes.", min=20_000)] = 100_000,
) -> None:
    """Measure what a node holds in memory over many echoes: its growth after the first 10,000."""
    from easyremote.bench import memory

    memory.main(json_file, calls)


@app.command("stream-memory")
@told
def bench_stream_memory(
    json_file: JsonFile = None,
    minutes: Annotated[int, typer.Option(help="How long, the first two of them to warm up.", min=3)] = 10,
) -> None:
    """Measure what a streams worker holds in memory while it works at full rate: its growth after two minutes."""
    from easyremote.bench import stream_memory

    stream_memory.main(json_file, minutes)


@app.command("backends")
@told
def bench_backends(
    json_file: JsonFile = None,
    seconds: Annotated[float, typer.Option(help="For each size of batch, in three turns.", min=1)] = 6.0,
) -> None:
    """Compare what computes the models, torch, ONNX Runtime and int8: accuracy, agreement, items per second."""
    from easyremote.bench import backends

    backends.main(json_file, seconds)
