"""The pipelines of this process."""

from __future__ import annotations

import re

from easyremote.errors import WindowError
from easyremote.pipelines.pipeline import Pipeline, Source
from easyremote.pipelines.stages import Stage

__all__ = ["check_topic", "pipeline_of", "registered"]

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")

registered: dict[str, Pipeline] = {}
"""The pipelines of this process, by name: what a worker of the role `streams` runs."""


def check_topic(name: str) -> None:
    """Raise a WindowError if a name is no topic's."""
    if not _TOPIC.fullmatch(name):
        raise WindowError(f"{name!r} is no topic: use letters, digits, '.', '_' and '-', at most 200")


def pipeline_of(sources: tuple[Source, ...], stage: Stage, topic: str, name: str | None, *, register: bool) -> Pipeline:
    """Return a pipeline, and have workers of this process run it where it is to be registered.

    Raises
    ------
    WindowError
        If its sink is a source, or another pipeline has its name.
    """
    check_topic(topic)
    if topic in {one.topic for one in sources}:
        raise WindowError(f"a pipeline from {topic!r} to itself would never end: choose another topic")
    name = name or f"{'-'.join(one.topic for one in sources)}.{topic}"
    check_topic(name)
    pipeline = Pipeline(name=name, sources=sources, sink=topic, stage=stage)
    if register:
        if pipeline.name in registered:
            raise WindowError(f"there is a pipeline {pipeline.name!r} already: say .to({topic!r}, name='another')")
        registered[pipeline.name] = pipeline
    return pipeline
