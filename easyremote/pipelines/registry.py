"""The pipelines of this process."""

from __future__ import annotations

import re

from easyremote.errors import WindowError
from easyremote.pipelines.pipeline import Pipeline, Source
from easyremote.pipelines.stages import Stage
from easyremote.topics.catalog import is_of_the_system

__all__ = ["check_sink", "check_source", "pipeline_of", "registered"]

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")

registered: dict[str, Pipeline] = {}
"""The pipelines of this process, by name: what a worker of the role `streams` runs."""


def check_source(name: str) -> None:
    """Raise a WindowError if a name is no topic's, or one of the system's that only it reads."""
    _check_name(name)
    if is_of_the_system(name):
        raise WindowError(
            f"{name!r} is a topic of the system's own: {_FREE}, and what stands beside them (.late, .dlq)"
        )


def check_sink(name: str) -> None:
    """Raise a WindowError if a name is no topic's, or one that only the system writes."""
    _check_name(name)
    if is_of_the_system(name) or name.endswith(_RESERVED):
        raise WindowError(
            f"{name!r} is a topic of the system's own: {_FREE}; a name must not end with {', '.join(_RESERVED)}"
        )


_FREE = "free are readings, aggregates, alerts and all names of your own"
_RESERVED = (".late", ".dlq", ".handled", ".changelog")


def _check_name(name: str) -> None:
    if not _TOPIC.fullmatch(name) or not name.strip("."):
        raise WindowError(f"{name!r} is no topic: use letters, digits, '.', '_' and '-', at most 200")


def pipeline_of(sources: tuple[Source, ...], stage: Stage, topic: str, name: str | None, *, register: bool) -> Pipeline:
    """Return a pipeline, and have workers of this process run it where it is to be registered.

    Raises
    ------
    WindowError
        If its sink is a source or a topic of the system's, or another pipeline has its name.
    """
    check_sink(topic)
    if topic in {one.topic for one in sources}:
        raise WindowError(f"a pipeline from {topic!r} to itself would never end: choose another topic")
    name = name or f"{'-'.join(one.topic for one in sources)}.{topic}"
    _check_name(name)
    pipeline = Pipeline(name=name, sources=sources, sink=topic, stage=stage)
    if register:
        if pipeline.name in registered:
            raise WindowError(f"there is a pipeline {pipeline.name!r} already: say .to({topic!r}, name='another')")
        registered[pipeline.name] = pipeline
    return pipeline
