"""Pipelines of each kind over a replay of readings, each in a worker of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyremote.bench.kinds import KINDS, SOURCE, TWIN
from easyremote.bench.programs import log_of, worker
from easyremote.bench.readings import DEVICES, PARTITIONS, Commits, bench_topic, fill
from easyremote.bench.report import Report, step
from easyremote.errors import ConfigError
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.follower import Follower

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["measure_pipelines"]

_KEYS = 1_000_000
_LIMIT_S = 120.0


@dataclass(frozen=True)
class Shape:
    """How much of what is there."""

    partitions: int = PARTITIONS
    workers: int = 1
    devices: int = DEVICES

    def __str__(self) -> str:
        keys = "" if self.devices == DEVICES else f", {self.devices:,} keys"
        return f"{self.partitions} partitions, {self.workers} worker{'s' if self.workers > 1 else ''}{keys}"


def measure_pipelines(report: Report, settings: Settings, readings: int) -> None:
    """Add the rate of each kind of pipeline, from a worker's first commit to its last."""
    part = max(readings // 4, 10_000)
    for number, kind in enumerate(KINDS):
        own = settings.model_copy(update={"namespace": f"{settings.namespace}{number}-"})
        topics = (SOURCE, TWIN) if kind == "interval join" else (SOURCE,)
        with step(f"a pipeline: {kind}, {part:,} readings"):
            report.add(f"{kind}", _pipeline(own, kind, topics, part, Shape()), "records/s")
    shapes = [Shape(devices=_KEYS)] + [Shape(partitions, workers) for partitions in (2, 4) for workers in (1, 2)]
    for number, shape in enumerate(shapes):
        own = settings.model_copy(update={"namespace": f"{settings.namespace}shape-{number}-"})
        count = max(readings, shape.devices)
        with step(f"a pipeline: tumbling, {shape}, {count:,} readings"):
            rate = _pipeline(own, "tumbling 10 s", (SOURCE,), count, shape)
        report.add(f"tumbling, {shape}", rate, "records/s")


def _pipeline(settings: Settings, kind: str, topics: Sequence[str], readings: int, shape: Shape) -> float:
    admin = TopicAdmin(settings)
    admin.ensure(declarations())
    admin.ensure([bench_topic(name, shape.partitions) for name in topics])
    admin.ensure([bench_topic("pipelines.bench.changelog", shape.partitions, compacted=True)])
    for topic in topics:
        fill(settings, topic, readings, shape.devices, shape.partitions)
    commits = Commits(readings * len(topics))
    follower = Follower(settings, f"{settings.namespace}pipelines.bench.changelog", commits.take, start="beginning")
    environment = {
        "EASYREMOTE_ROLES": "streams",
        "EASYREMOTE_PIPELINES": "easyremote.bench.kinds",
        "BENCH_KIND": kind,
    }
    try:
        with _workers(settings, environment, shape.workers):
            if not commits.done.wait(_LIMIT_S):
                raise ConfigError(f"the pipeline was not done after {_LIMIT_S:g} s: see {log_of(settings)}")
            return commits.rate()
    finally:
        follower.close()


@contextmanager
def _workers(settings: Settings, environment: Mapping[str, str], count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for number in range(count):
            own = settings.model_copy(update={"data_dir": settings.data_dir / f"worker-{number}"})
            own.data_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(worker(own, {**environment, "EASYREMOTE_NODE_ID": f"bench-{number}"}))
        yield
