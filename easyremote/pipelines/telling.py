"""What is made of a key's records: results that are told of windows, pairs of a join; and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from easyremote.errors import WindowError
from easyremote.pipelines.detection import Detection
from easyremote.pipelines.pipeline import Pipeline, Source
from easyremote.pipelines.registry import pipeline_of
from easyremote.pipelines.stages import Joining, Windowing
from easyremote.windows import EventTime
from easyremote.windows.aggregates import Aggregate
from easyremote.windows.assigners import Assigner
from easyremote.windows.guarding import is_of_a_user
from easyremote.windows.windowed import Emission

__all__ = ["Aggregated", "Detected", "Joined", "Windows"]

_OWN = frozenset({"window_start", "window_end", "revision", "final"})


@dataclass(frozen=True)
class Joined:
    """Pairs of records, which want to go somewhere."""

    sources: tuple[Source, ...]
    stage: Joining

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the pairs to a topic; see `Aggregated.to`."""
        return pipeline_of(self.sources, self.stage, topic, name, register=register)


@dataclass(frozen=True)
class Detected:
    """Alerts, which want to go somewhere."""

    source: Source
    stage: Detection

    def to(self, topic: str = "alerts", *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the alerts to a topic; see `Aggregated.to`."""
        return pipeline_of((self.source,), self.stage, topic, name, register=register)


@dataclass(frozen=True)
class Windows:
    """Records by key and window."""

    source: Source
    windows: Assigner
    event_time: EventTime
    emission: Emission

    def aggregate(self, **aggregates: Aggregate) -> Aggregated:
        """Say what is told of each window, by the name of the result's field.

        Raises
        ------
        WindowError
            If one is no aggregate, reads a field of a type that it cannot use, or its name is taken.
        """
        if not aggregates:
            raise WindowError("aggregate() needs at least one, such as aggregate(mean=Mean('value'))")
        for name, one in aggregates.items():
            if not hasattr(one, "state") or isinstance(one, type):
                raise WindowError(f"{name}={one!r} is no aggregate: use Mean('value') and its like")
            _check_state(name, one)
            if name in _OWN or name in self.source.key:
                raise WindowError(f"a result has {name!r} already: give the aggregate another name")
            self._check_type(name, one)
        return Aggregated(self, aggregates)

    def _check_type(self, name: str, aggregate: Aggregate) -> None:
        column = aggregate.state.column
        kind = self.source.types.get(column or "")
        if type(aggregate).__module__.endswith(".custom") or kind is None or self.source.steps:
            return
        if kind not in {int, float}:
            raise WindowError(
                f"{name} reads {column!r}, which is of type {kind.__name__} and no number: use TypeDistribution or "
                "Custom, or another field"
            )


def _check_state(name: str, aggregate: Aggregate) -> None:
    if not is_of_a_user(aggregate):
        return
    try:
        state = aggregate.state
        hash(state)
        made = (state.column, len(state.empty(1)), callable(aggregate.results))
    except Exception as error:  # whatever a user's class raises
        raise WindowError(
            f"{name}={aggregate!r} is no aggregate ({error!r}): its state needs column, empty, of_groups, merge, pack "
            "and unpack, and a hash; or use Custom"
        ) from error
    if made[1:] != (1, True):
        raise WindowError(f"{name}={aggregate!r} is no aggregate: empty(n) gives n states, and results() is a function")


@dataclass(frozen=True)
class Aggregated:
    """Results, which want to go somewhere."""

    of: Windows
    aggregates: Mapping[str, Aggregate]

    def to(self, topic: str, *, name: str | None = None, register: bool = True) -> Pipeline:
        """Send the results to a topic; a worker of the role `streams` runs it from now on.

        Parameters
        ----------
        topic : str
            Without the namespace; it is made with the source's number of partitions if it is not there.
        name : str, optional
            Of the pipeline; unset: the names of both topics.
        register : bool
            False: it is only described, for a test or a replay.

        Raises
        ------
        WindowError
            If the topic is the source, or another pipeline has the name.
        """
        of = self.of
        stage = Windowing(of.windows, self.aggregates, of.event_time, of.emission)
        return pipeline_of((of.source,), stage, topic, name, register=register)
